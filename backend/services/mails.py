"""Which mails users get: one for an event that concerns their account, a few an hour at most.

The address is that of the time of the event: a notice must reach the mailbox that was set before a thief changed it.
"""

from backend.domain import Event, User
from backend.infrastructure.transaction import Tx
from backend.repositories import mails

HOUR = 3_600_000  # milliseconds
MAX_AN_HOUR = 3  # mails of one kind to one mailbox


def owe_mail(tx: Tx, event: Event, to: User) -> None:
    """A mail about `event` goes to the user's address, unless the mailbox has had MAX_AN_HOUR of the kind."""
    if mails.count_since(tx, to.email, event.name, tx.now - HOUR) < MAX_AN_HOUR:
        mails.insert(tx, event, to)
