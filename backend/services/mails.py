"""Mails to users: one for each event that concerns their account, at most MAX_AN_HOUR of a kind.

The address is stored with the event: after a thief has changed the e-mail, the notice must reach the old mailbox.
"""

from backend.domain import Event, User
from backend.infrastructure.database import Tx
from backend.repositories import mails

HOUR = 3_600_000  # milliseconds
MAX_AN_HOUR = 3  # mails of one kind to one mailbox


def owe_mail(tx: Tx, event: Event, to: User) -> None:
    """Owe the user a mail about `event`, unless its mailbox was owed MAX_AN_HOUR of this kind in the last hour."""
    if mails.count_since(tx, to.email, event.name, tx.now - HOUR) < MAX_AN_HOUR:
        mails.insert(tx, event, to)
