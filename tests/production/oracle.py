"""The check after kills and races: the database is consistent and agrees with the answers that clients got."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

# Each of these queries returns no row from a consistent database; `{id}` is that of the effect of an idempotency key.
WRONG = {
    "a currency that does not add up to 0": """
        SELECT currency, sum(balance) FROM accounts GROUP BY currency HAVING sum(balance) <> 0""",
    "a balance that is not the sum of its entries": """
        SELECT id, balance FROM accounts
        WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = accounts.id)""",
    "a transaction without exactly its two entries": """
        SELECT id FROM transactions AS t
        WHERE (SELECT count(*) FROM entries WHERE transaction_id = t.id) <> 2
        OR (t.from_account_id, -t.amount) NOT IN (SELECT account_id, amount FROM entries WHERE transaction_id = t.id)
        OR (t.to_account_id, t.amount) NOT IN (SELECT account_id, amount FROM entries WHERE transaction_id = t.id)""",
    "an order without exactly its payment, and its refund if it was cancelled": """
        SELECT id, status FROM orders AS o
        WHERE CASE status WHEN 'cancelled' THEN 2 ELSE 1 END
            <> (SELECT count(*) FROM transactions WHERE order_id = o.id)
        OR ('payment', account_id, total)
            NOT IN (SELECT type, from_account_id, amount FROM transactions WHERE order_id = o.id)
        OR (status = 'cancelled' AND ('refund', account_id, total)
            NOT IN (SELECT type, to_account_id, amount FROM transactions WHERE order_id = o.id))""",
    "an order that does not cost what its items do": """
        SELECT id FROM orders
        WHERE total <> (SELECT sum(quantity * unit_price) FROM order_items WHERE order_id = orders.id)""",
    "an idempotency key without its effect": """
        SELECT key, data FROM idempotency_keys WHERE {id} NOT IN
        (SELECT id FROM transactions UNION ALL SELECT id FROM orders UNION ALL SELECT id FROM accounts)""",
    "an effect under two idempotency keys": """
        SELECT {id} AS id, count(*) FROM idempotency_keys GROUP BY 1 HAVING count(*) > 1""",
    "an effect without its event": """
        SELECT type, id FROM transactions WHERE 1 <>
        (SELECT count(*) FROM outbox WHERE resource_id = transactions.id AND name = type || '.completed')""",
}
WRONG_IN_SQLITE = {
    "integrity": "SELECT * FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    "foreign keys": "SELECT * FROM pragma_foreign_key_check",
}


def result(
    database: Path | str, acknowledged: Mapping[str, str] | None = None, refused: Collection[str] = ()
) -> list[str]:
    """One line for each inconsistency in the file of SQLite, or the database of PostgreSQL at a URL.

    `acknowledged` maps the memos of answered transfers to their ids; `refused` has the memos of refused ones. Each memo
    belongs to one idempotency key, so no memo may be in the database twice, whatever its client was answered.
    """
    made: dict[str, list[str]] = {}
    with closing(_connect(database)) as connection:
        wrong = [f"{what}: {row}" for what, query in _queries(database) for row in connection.execute(query)]
        for memo, made_id in connection.execute("SELECT memo, id FROM transactions WHERE memo IS NOT NULL"):
            made.setdefault(memo, []).append(made_id)
    wrong += [f"{memo}: two effects of one key" for memo, ids in made.items() if len(ids) > 1]
    wrong += [
        f"{memo}: acknowledged, not there"
        for memo, told in (acknowledged or {}).items()
        if told not in made.get(memo, [])
    ]
    wrong += [f"{memo}: refused, and there" for memo in refused if memo in made]
    return wrong


def _connect(database: Path | str) -> Any:
    if isinstance(database, Path):
        return sqlite3.connect(database)
    import psycopg

    return psycopg.connect(database)


def _queries(database: Path | str) -> Iterator[tuple[str, str]]:
    if isinstance(database, Path):
        yield from WRONG_IN_SQLITE.items()
    effect = "json_extract(data, '$.id')" if isinstance(database, Path) else "(data::json ->> 'id')"
    for what, query in WRONG.items():
        yield what, query.format(id=effect)
