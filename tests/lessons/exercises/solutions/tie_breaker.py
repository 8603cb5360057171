"""Order and cursor have the id as a second column, so no two rows are equal."""

import sqlite3
from typing import Any

SIZE = 20
END = 2**63 - 1, ""  # the greatest INTEGER: later than every row


def page(db: sqlite3.Connection, cursor: Any) -> tuple[list[tuple], Any]:
    rows = db.execute(
        "SELECT id, created_at FROM products WHERE (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT ?",
        [*(cursor or END), SIZE],
    ).fetchall()
    return rows, (rows[-1][1], rows[-1][0]) if rows else None
