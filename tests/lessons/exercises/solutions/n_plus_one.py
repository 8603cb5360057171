"""The items of all orders are one query, so there is nothing to call in a loop."""

import sqlite3
from collections import defaultdict


def page(db: sqlite3.Connection, limit: int) -> list[dict]:
    orders = db.execute("SELECT id, total FROM orders ORDER BY id DESC LIMIT ?", [limit]).fetchall()
    items = items_of(db, [order for order, _ in orders])
    return [{"id": order, "total": total, "items": items[order]} for order, total in orders]


def items_of(db: sqlite3.Connection, orders: list[int]) -> dict[int, list[str]]:
    """By order, in the order in which they were written."""
    items = defaultdict(list)
    marks = ", ".join("?" * len(orders))
    for order, sku in db.execute(f"SELECT order_id, sku FROM items WHERE order_id IN ({marks}) ORDER BY id", orders):
        items[order].append(sku)
    return items
