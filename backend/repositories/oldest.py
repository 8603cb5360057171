"""The oldest rows of a table whose ids are UUIDv7: the order of its key is the order of time, so no index is needed."""

from typing import Literal

from backend.infrastructure.database import Tx

Table = Literal["sessions", "password_resets", "reset_requests", "audit"]


def prune(tx: Tx, table: Table, until: int, batch: int) -> int:
    """Of the `batch` oldest rows, delete those that were created at or before `until`. Returns their number.

    Reads no other rows. After the clock was set back, ids may be younger than `created_at`: such rows are deleted late.
    """
    return tx.run(
        f"""DELETE FROM {table} WHERE id IN (SELECT id FROM
            (SELECT id, created_at FROM {table} ORDER BY id LIMIT :batch) AS oldest WHERE created_at <= :until)""",
        until=until,
        batch=batch,
    )
