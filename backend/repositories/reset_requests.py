"""The table `reset_requests`: addresses for which a password reset was requested, until they are looked up."""

from backend.infrastructure.database import Tx


def insert(tx: Tx, request_id: str, email: str) -> None:
    tx.write(
        "INSERT INTO reset_requests (id, email, created_at) VALUES (:id, :email, :now)",
        id=request_id, email=email, now=tx.now,
    )  # fmt: skip


def take(tx: Tx, request_id: str) -> str | None:
    """Delete the request and return its address; None if it was taken before."""
    row = tx.row("DELETE FROM reset_requests WHERE id = :id RETURNING email", id=request_id)
    return row[0] if row else None
