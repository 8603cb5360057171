"""A cursor without tie-breaker: each product is on one page, also if fifty of them have one time.

Task: Return one page of products, the newest first, and the cursor of the next page (None after the last one).
Invariant: A client that follows the cursors to the end gets each row once.
Hint: The order needs a second column that is unique, and so does the cursor. SQL compares rows:
`(created_at, id) < (?, ?)`. The first call passes the cursor None.
Run: make exercise L=tie_breaker
"""

import sqlite3
from typing import Any

SIZE = 20
END = 2**63 - 1  # the greatest INTEGER: later than every row


def page(db: sqlite3.Connection, cursor: Any) -> tuple[list[tuple], Any]:
    rows = db.execute(
        "SELECT id, created_at FROM products WHERE created_at < ? ORDER BY created_at DESC LIMIT ?",
        [cursor or END, SIZE],
    ).fetchall()
    return rows, rows[-1][1] if rows else None
