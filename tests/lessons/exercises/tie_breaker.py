"""A cursor without tie-breaker: each product is on one page, also if fifty of them have one time.

Task: Return one page of products, the newest first, and the cursor of the next page (None after the last one).
Invariant: A client that follows the cursors to the end gets each row once.
Hint: The order needs a second column that is unique, and so does the cursor. SQL compares rows:
`(created_at, id) < (?, ?)`. The first call passes the cursor None.
"""

import sqlite3
from typing import Any

SIZE = 20


def page(db: sqlite3.Connection, cursor: Any) -> tuple[list[tuple], Any]:
    rows = db.execute(
        "SELECT id, created_at FROM products WHERE ?1 IS NULL OR created_at < ?1 ORDER BY created_at DESC LIMIT ?2",
        [cursor, SIZE],
    ).fetchall()
    return rows, rows[-1][1] if rows else None
