"""`n_plus_one.py` is right if a hundred orders take as many queries as one."""

import sqlite3
from contextlib import closing

import pytest

from tests.lessons.exercises.attack import expect
from tests.lessons.exercises.n_plus_one import page
from tests.lessons.lesson_14_n_plus_one import ORDERS, verdict
from tests.lessons.watched import watched


@pytest.fixture
def shop():
    """A connection, and the count of its queries."""
    with watched() as work, closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)")
        db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, order_id INTEGER, sku TEXT)")
        yield db, work


def test_the_number_of_queries_does_not_depend_on_the_number_of_orders(shop):
    db, work = shop
    db.executemany("INSERT INTO orders VALUES (?, 500)", [(n,) for n in range(ORDERS)])
    db.executemany("INSERT INTO items (order_id, sku) VALUES (?, 'TEA')", [(n,) for n in range(ORDERS)])
    expect(verdict(work, lambda limit: page(db, limit)))


def test_each_order_has_its_own_items(shop):
    db, _ = shop
    db.execute("INSERT INTO orders VALUES (1, 0), (2, 700), (3, 500)")
    db.execute("INSERT INTO items (order_id, sku) VALUES (3, 'TEA'), (2, 'TEA'), (3, 'MILK'), (2, 'CUP')")
    assert page(db, 3) == [
        {"id": 3, "total": 500, "items": ["TEA", "MILK"]},
        {"id": 2, "total": 700, "items": ["TEA", "CUP"]},
        {"id": 1, "total": 0, "items": []},
    ]
    assert [order["id"] for order in page(db, 1)] == [3]
