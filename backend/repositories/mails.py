"""The table `mails`: the mail that follows an event, and the address of its user at the time of the event."""

from backend.domain import Event, User, fold
from backend.infrastructure.database import Tx


def insert(tx: Tx, event: Event, to: User) -> None:
    tx.write(
        """INSERT INTO mails (event_id, user_id, kind, email, email_key, created_at)
           VALUES (:event_id, :user_id, :kind, :email, :email_key, :now)""",
        event_id=event.id, user_id=to.id, kind=event.name, email=to.email, email_key=fold(to.email), now=tx.now,
    )  # fmt: skip


def count_since(tx: Tx, email: str, kind: str, since: int) -> int:
    """The number of mails of this kind since `since` to this mailbox, whatever the case of its address."""
    ((count,),) = tx.rows(
        "SELECT count(*) FROM mails WHERE email_key = :email_key AND kind = :kind AND created_at > :since",
        email_key=fold(email), kind=kind, since=since,
    )  # fmt: skip
    return int(count)


def address_of(tx: Tx, event_id: str) -> str | None:
    """None if no mail follows the event or its user was deleted."""
    row = tx.row("SELECT email FROM mails WHERE event_id = :event_id", event_id=event_id)
    return row[0] if row else None


def delete_all(tx: Tx, user_id: str) -> None:
    tx.write("DELETE FROM mails WHERE user_id = :user_id", user_id=user_id)
