"""The table `password_resets`: requests for a new password. The token is made from a row's id and never stored."""

from backend.domain import Timestamp
from backend.infrastructure.transaction import Tx


def insert(tx: Tx, reset_id: str, user_id: str) -> None:
    """Any that is still open, because it was not used in time, ends."""
    end_all(tx, user_id)
    tx.run(
        "INSERT INTO password_resets (id, user_id, created_at) VALUES (:id, :user_id, :now)",
        id=reset_id, user_id=user_id, now=tx.now,
    )  # fmt: skip


def open_by_id(tx: Tx, reset_id: str) -> tuple[str, Timestamp] | None:
    """Whose it is and when it was made, if it is neither used nor voided."""
    row = tx.row("SELECT user_id, created_at FROM password_resets WHERE id = :id AND ended_at IS NULL", id=reset_id)
    return (row[0], row[1]) if row else None


def open_of(tx: Tx, user_id: str, since: int) -> str | None:
    """The user's open request, if it was made after `since`: there is one at most."""
    row = tx.row(
        "SELECT id FROM password_resets WHERE user_id = :user_id AND ended_at IS NULL AND created_at > :since",
        user_id=user_id, since=since,
    )  # fmt: skip
    return row[0] if row else None


def end_all(tx: Tx, user_id: str) -> None:
    tx.run(
        "UPDATE password_resets SET ended_at = :now WHERE user_id = :user_id AND ended_at IS NULL",
        user_id=user_id, now=tx.now,
    )  # fmt: skip
