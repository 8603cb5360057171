"""The check after kills and races: the database is consistent and agrees with the answers that clients got."""

import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

FOREIGN_KEYS = "SELECT * FROM pragma_foreign_key_check"
ID_OF_EFFECT = "json_extract(data, '$.id')"
# Each of these queries returns no row from a consistent database. PostgreSQL has another word for ID_OF_EFFECT.
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
    "an idempotency key without its effect": f"""
        SELECT key, data FROM idempotency_keys WHERE {ID_OF_EFFECT} NOT IN
        (SELECT id FROM transactions UNION ALL SELECT id FROM orders UNION ALL SELECT id FROM accounts)""",
    "an effect under two idempotency keys": f"""
        SELECT {ID_OF_EFFECT} AS id, count(*) FROM idempotency_keys GROUP BY 1 HAVING count(*) > 1""",
    "an effect without its event": """
        SELECT type, id FROM transactions WHERE 1 <>
        (SELECT count(*) FROM outbox WHERE resource_id = transactions.id AND name = type || '.completed')""",
}


def result(database: Path, acknowledged: Mapping[str, str] | None = None, refused: Collection[str] = ()) -> list[str]:
    """One line for each inconsistency.

    `acknowledged` maps the memos of answered transfers to their ids; `refused` has the memos of refused ones. Each memo
    belongs to one idempotency key, so no memo may be in the database twice, whatever its client was answered.
    """
    with closing(sqlite3.connect(database)) as sqlite:
        checked = [text for (text,) in sqlite.execute("PRAGMA integrity_check")]
        wrong = [] if checked == ["ok"] else checked
        wrong += [f"foreign keys: {row}" for row in sqlite.execute(FOREIGN_KEYS)]
        return wrong + result_of(lambda sql: sqlite.execute(sql).fetchall(), acknowledged or {}, refused)


def result_of(
    rows: Callable[[str], list[Any]], acknowledged: Mapping[str, str], refused: Collection[str] = ()
) -> list[str]:
    """The same of a database whose engine has checked itself and the foreign keys; `rows` runs a query."""
    wrong = [f"{what}: {row}" for what, query in WRONG.items() for row in rows(query)]
    made: dict[str, list[str]] = {}
    for memo, made_id in rows("SELECT memo, id FROM transactions WHERE memo IS NOT NULL"):
        made.setdefault(memo, []).append(made_id)
    wrong += [f"{memo}: two effects of one key" for memo, ids in made.items() if len(ids) > 1]
    wrong += [
        f"{memo}: acknowledged, not there" for memo, told in acknowledged.items() if told not in made.get(memo, [])
    ]
    wrong += [f"{memo}: refused, and there" for memo in refused if memo in made]
    return wrong
