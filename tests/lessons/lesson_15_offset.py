"""OFFSET: page 100 reads the 99 pages before it, and shows rows that the client has seen.

Catalogue: "Pages are `LIMIT :size OFFSET (:page - 1) * :size`."

Goes wrong: OFFSET skips rows by reading them, so each page costs more than the one before: a crawler that walks to the
end costs the square of the table. And OFFSET counts from the newest row of *now*. A row that is written while a client
reads moves all others down, so the last row of page 1 is the first of page 2. (The cost is counted in steps of SQLite's
virtual machine, which do not depend on the load of the computer.)

Bitten: https://github.com/cloudfoundry/cloud_controller_ng/pull/3353, where a page took 7 ms at offset 0 and a minute
at ten million; and https://github.com/taskcluster/taskcluster/issues/3278, where scans met the same row twice.

Read: `backend/web/pagination.py`: a cursor is the id of the last row, and the next page is `id < last`, one range of
the primary key. `GET /users` alone has pages by OFFSET, so that admins can jump to a page. The README says the price.

Exercise: Give `page` a parameter `before` instead of `number`. What must the first page pass? Why can a client no
longer ask for page 57, and which of your screens would miss it?
"""

import sqlite3
from contextlib import closing

from backend.domain import Product
from backend.infrastructure.ids import new_id
from backend.repositories import products
from tests.lessons import Stage, Verdict
from tests.lessons.watched import watched

ROWS, SIZE = 5_000, 50
LAST = ROWS // SIZE


def page(db, number):
    return db.execute(
        "SELECT id FROM products ORDER BY id DESC LIMIT ? OFFSET ?", [SIZE, (number - 1) * SIZE]
    ).fetchall()


def naive(stage: Stage) -> list[Verdict]:
    with watched() as work, closing(sqlite3.connect(stage.folder / "naive.db")) as db:
        db.execute("CREATE TABLE products (id INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO products VALUES (?)", [(n,) for n in range(ROWS)])
        costs = []
        for number in (1, LAST):
            work.steps = 0
            page(db, number)
            costs.append(work.steps)
        seen = []
        for number in range(1, 11):
            seen += page(db, number)
            db.execute("INSERT INTO products DEFAULT VALUES")
    return [depth(*costs), twice(seen)]


def ours(stage: Stage) -> list[Verdict]:
    with watched() as work:
        api = stage.api()
        root = api.admin()
        with api.app.database.transaction() as tx:
            for n in range(ROWS):
                products.insert(tx, Product(new_id(), f"SKU-{n}", "Tea", 250, "EUR", 10, 1, tx.now, tx.now))
        costs, seen, cursor = [], [], ""
        for number in range(1, LAST + 1):
            work.steps = 0
            answer = api.get(f"/products?limit={SIZE}{cursor}").json
            costs.append(work.steps)
            seen += [row["id"] for row in answer["data"]]
            cursor = f"&cursor={answer['meta']['pagination']['nextCursor']}"
            if number <= 10:
                api.product(root, f"NEW-{number}")
    return [depth(costs[0], costs[-1]), twice(seen[: 10 * SIZE])]


def depth(first: int, last: int) -> Verdict:
    says = f"page 1 takes {first:,} steps of SQLite, page {LAST} {last:,}"
    return Verdict(max(first, last) < 2 * min(first, last), last, says)


def twice(seen: list) -> Verdict:
    doubled = len(seen) - len(set(seen))
    return Verdict(not doubled, doubled, f"of 10 pages beside a writer, {doubled} rows came twice")
