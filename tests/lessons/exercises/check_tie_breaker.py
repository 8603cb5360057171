"""`tie_breaker.py` is right if a walk from the first page to the last finds every product once."""

import sqlite3
import uuid
from contextlib import closing

from tests.lessons import Verdict
from tests.lessons.exercises.attack import expect
from tests.lessons.exercises.tie_breaker import page
from tests.lessons.lesson_16_tie_breaker import IMPORTS, ROWS, verdict


def test_every_product_is_on_one_page():
    seen, cursor = [], None
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE products (id TEXT PRIMARY KEY, created_at INTEGER NOT NULL)")
        made = [(str(uuid.uuid4()), 1_700_000_000 + number) for number in range(IMPORTS) for _ in range(ROWS)]
        db.executemany("INSERT INTO products VALUES (?, ?)", made)
        for _ in made:  # more pages than there can be: a cursor that stands still ends, too
            rows, cursor = page(db, cursor)
            seen += rows
            if cursor is None:
                break
    doubled = len(seen) - len(set(seen))
    expect(verdict(seen))
    expect(Verdict(not doubled, doubled, f"{doubled} rows came twice"))
    times = [created_at for _, created_at in seen]
    expect(Verdict(times == sorted(times, reverse=True), 1, "the newest comes first"))
