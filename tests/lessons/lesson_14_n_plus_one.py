"""N+1: a page of 100 orders is one query, and then one more for each order.

Catalogue: "The list loads the orders; each order loads its items when they are needed."

Goes wrong: With the three orders of a developer there is nothing to see. In production the page has 100 orders and the
database is a millisecond away, so the page takes 101 of them. Each further row on the page makes it slower.

Bitten: https://github.com/mozilla/pontoon/issues/3545, where a page of 369 languages made a query for each of them.

Read: `backend/repositories/orders.py`, `items_of`: it takes all ids at once, so there is nothing to call in a loop.
`tests/journeys/test_query_counts.py` counts the statements of every list. (One of the three here reads session and
user.)

Exercise: `make exercise L=n_plus_one`: repair `tests/lessons/exercises/n_plus_one.py` with two statements: collect the
ids, read all items with one `IN (…)`, and group them. Then try one statement, a JOIN. What does LIMIT 100 count in it?
"""

import sqlite3
from contextlib import closing

from tests.lessons import Stage, Verdict
from tests.lessons.watched import watched

ORDERS = 100


def page(db, limit):
    orders = db.execute("SELECT id, total FROM orders ORDER BY id DESC LIMIT ?", [limit]).fetchall()
    return [
        {"id": order, "total": total, "items": db.execute("SELECT * FROM items WHERE order_id = ?", [order]).fetchall()}
        for order, total in orders
    ]


def naive(stage: Stage) -> list[Verdict]:
    with watched() as work, closing(sqlite3.connect(stage.folder / "naive.db")) as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)")
        db.execute("CREATE TABLE items (order_id INTEGER, sku TEXT)")
        db.executemany("INSERT INTO orders VALUES (?, 500)", [(n,) for n in range(ORDERS)])
        db.executemany("INSERT INTO items VALUES (?, 'TEA')", [(n,) for n in range(ORDERS)])
        return [verdict(work, lambda limit: page(db, limit))]


def ours(stage: Stage) -> list[Verdict]:
    with watched() as work:
        api = stage.api()
        root, ada = api.admin(), api.sign_up("Ada")
        purse = api.account(ada, balance=1_000_00, admin=root)
        order = {"accountId": purse, "items": [{"productId": api.product(root, stock=ORDERS), "quantity": 1}]}
        for _ in range(ORDERS):
            api.post("/orders", ada, order)
        return [verdict(work, lambda limit: api.get(f"/orders?limit={limit}", ada).json["data"])]


def verdict(work, page) -> Verdict:
    """Show one order, then a hundred, and count."""
    counts = []
    for limit in (1, ORDERS):
        work.selects = 0
        assert [len(order["items"]) for order in page(limit)] == [1] * limit
        counts.append(work.selects)
    one, many = counts
    return Verdict(many == one, many, f"{one} queries for 1 order, {many} for {ORDERS} orders")
