"""N+1: a page of a hundred orders takes two queries, as a page of one order does.

Task: Return the newest orders, each with its items: `{"id": 7, "total": 500, "items": ["TEA", "MILK"]}`.
Invariant: The number of queries does not depend on the number of orders.
Hint: Write the plural first: the items of *all* these orders, with one `IN (?, ?, …)`. Then group them by order.
Run: make exercise L=n_plus_one
"""

import sqlite3


def page(db: sqlite3.Connection, limit: int) -> list[dict]:
    orders = db.execute("SELECT id, total FROM orders ORDER BY id DESC LIMIT ?", [limit]).fetchall()
    return [{"id": order, "total": total, "items": items_of(db, order)} for order, total in orders]


def items_of(db: sqlite3.Connection, order: int) -> list[str]:
    """In the order in which they were written."""
    return [sku for (sku,) in db.execute("SELECT sku FROM items WHERE order_id = ? ORDER BY id", [order])]
