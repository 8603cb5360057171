"""A cursor without tie-breaker: rows of the same millisecond are lost between two pages.

Catalogue: "Use the creation time of the last row as the cursor: `created_at < :cursor`."

Goes wrong: An import writes fifty products in one transaction, so they have one time. A page ends after twenty of them,
and `created_at < :cursor` excludes the other thirty: they are on no page, and no error says so. With `<=`, the second
page is the first one again, for ever.

Bitten: https://github.com/openkruise/agents/issues/581, where a walk over 10,000 sandboxes returned about 9,600.

Read: `backend/infrastructure/ids.py` and `backend/web/pagination.py`: ids are UUIDv7. They sort by time and are unique,
so the id alone is the order and needs no tie-breaker.

Exercise: `make exercise L=tie_breaker`: keep `created_at` as the order and repair
`tests/lessons/exercises/tie_breaker.py` with a second column: `(created_at, id) < (?, ?)`. Which index does it need,
and what must the cursor hold now?
"""

import sqlite3
from contextlib import closing

from backend.domain import Product
from backend.infrastructure.ids import new_id
from backend.repositories import products
from tests.conftest import Api
from tests.lessons import Stage, Verdict

IMPORTS, ROWS, SIZE = 5, 50, 20


def page(db, cursor):
    rows = db.execute(
        "SELECT id, created_at FROM products WHERE created_at < ? ORDER BY created_at DESC LIMIT ?", [cursor, SIZE]
    ).fetchall()
    return rows, rows[-1][1] if rows else None


def naive(stage: Stage) -> list[Verdict]:
    import_products(stage.api())
    seen, cursor = [], 2**63 - 1
    with closing(sqlite3.connect(stage.database)) as db:
        while cursor is not None:
            rows, cursor = page(db, cursor)
            seen += [row[0] for row in rows]
    return [verdict(seen)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    import_products(api)
    seen, cursor = [], ""
    while cursor is not None:
        answer = api.get(f"/products?limit={SIZE}{cursor and f'&cursor={cursor}'}").json
        cursor = answer["meta"]["pagination"]["nextCursor"]
        seen += [row["id"] for row in answer["data"]]
    return [verdict(seen)]


def import_products(api: Api) -> None:
    """Each import is one transaction, and a transaction has one time."""
    for number in range(IMPORTS):
        with api.app.database.transaction() as tx:
            for n in range(ROWS):
                made = Product(new_id(), f"SKU-{number}-{n}", "Tea", 250, "EUR", 10, 1, tx.now, tx.now)
                products.insert(tx, made)


def verdict(seen: list) -> Verdict:
    lost = IMPORTS * ROWS - len(set(seen))
    return Verdict(not lost, lost, f"of {IMPORTS * ROWS} products, {len(set(seen))} came and {lost} are on no page")
