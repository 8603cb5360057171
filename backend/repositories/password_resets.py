"""The table `password_resets`: resets that users have requested. A token is derived from the row's id, never stored."""

from backend.infrastructure.database import Tx


def insert(tx: Tx, reset_id: str, user_id: str) -> None:
    """Open a reset for the user, and end one that was not used in time."""
    end_all(tx, user_id)
    tx.write(
        "INSERT INTO password_resets (id, user_id, created_at) VALUES (:id, :user_id, :now)",
        id=reset_id, user_id=user_id, now=tx.now,
    )  # fmt: skip


def open_by_id(tx: Tx, reset_id: str, since: int) -> str | None:
    """The id of the reset's user, if the reset is open and was created after `since`."""
    row = tx.row(
        f"""SELECT user_id FROM password_resets
            WHERE id = :id AND ended_at IS NULL AND created_at > :since{tx.for_update}""",
        id=reset_id,
        since=since,
    )
    return row[0] if row else None


def open_of(tx: Tx, user_id: str, since: int) -> str | None:
    """The id of the user's open reset, if it was created after `since`. A user has at most one."""
    row = tx.row(
        "SELECT id FROM password_resets WHERE user_id = :user_id AND ended_at IS NULL AND created_at > :since",
        user_id=user_id,
        since=since,
    )
    return row[0] if row else None


def end_all(tx: Tx, user_id: str) -> None:
    tx.write(
        "UPDATE password_resets SET ended_at = :now WHERE user_id = :user_id AND ended_at IS NULL",
        user_id=user_id,
        now=tx.now,
    )
