"""A database after years of use, written in SQL: a long ledger, many users, many expired rows."""

import sqlite3
from pathlib import Path

BUYERS = 100  # of the newest users, with three orders of three items each
OTHERS = 1000  # accounts that share half of the ledger; the other half is one account's, and each user has an empty one

# Number i is from the i-th millisecond of a year that is past: ids that sort as they were made, before all real ones.
ID = "printf('01800000-%04x-7000-8000-%012x', ({0}) >> 16, {0})"
NUMBERS = "WITH RECURSIVE numbers (i) AS (SELECT {0} UNION ALL SELECT i + 1 FROM numbers WHERE i < {1} - 1)"
STATEMENTS = f"""
{NUMBERS.format("0", ":users")} INSERT INTO users
    SELECT {ID.format("i")}, 'u' || i || '@example.com', 'u' || i || '@example.com', 'User ' || i, 'user ' || i,
           'user', 1, 1, 0, 'none', 1600000000000 + i, 1600000000000 + i FROM numbers;

{NUMBERS.format("0", f"{OTHERS} + :users")} INSERT INTO accounts
    SELECT {ID.format("i")}, 'user', {ID.format("i % :users")}, 'EUR', 0, 1600000000000 FROM numbers;

{NUMBERS.format("0", ":users")} INSERT INTO idempotency_keys
    SELECT owner_id, CAST('key-' || i AS BLOB), zeroblob(32), '{{}}', 1600000000000 + i
    FROM numbers, accounts WHERE id = :busy;
{NUMBERS.format("0", ":users")} INSERT INTO sessions
    SELECT {ID.format("i")}, owner_id, 0, 'bench/1', '127.0.0.1', '127.0.0.1', 1600000000000, 1600000000000,
           1600000000000, NULL
    FROM numbers, accounts WHERE accounts.id = :busy;

{NUMBERS.format("0", ":rows")} INSERT INTO transactions
    SELECT {ID.format("i")}, 'deposit', :system, iif(i % 2, {ID.format(f"i / 2 % {OTHERS}")}, :busy), 1, 'EUR', NULL,
           NULL, 1600000000000 + i FROM numbers;
INSERT OR IGNORE INTO entries SELECT from_account_id, id, -amount FROM transactions;
INSERT OR IGNORE INTO entries SELECT to_account_id, id, amount FROM transactions ORDER BY 1, 2;
UPDATE accounts SET balance = (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = accounts.id);

{NUMBERS.format(f":users * 3 - {BUYERS * 3}", ":users * 3")} INSERT INTO orders
    SELECT {ID.format("i")}, {ID.format("i / 3")}, :busy, 'placed', 'EUR', 600, 1600000000000, 1600000000000
    FROM numbers;
INSERT INTO order_items
    SELECT orders.id, row_number() OVER (PARTITION BY orders.id) - 1, products.id, sku, products.name, 1, unit_price
    FROM orders, products;

DELETE FROM cache_invalidations WHERE seq <= (SELECT max(seq) FROM cache_invalidations) - 10000;
"""


def id_of(number: int) -> str:
    """The id of number `i` above, of whichever table; of the transactions, the even ones are the busy account's."""
    return f"01800000-{number >> 16:04x}-7000-8000-{number:012x}"


def grow(database: Path, busy: str, rows: int, users: int) -> None:
    """Add years of rows to a migrated database that no connection has open; `busy` is an account with a deposit."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000"):  # a draft until it is done
            connection.execute(f"PRAGMA {pragma}")
        (system,) = connection.execute("SELECT id FROM accounts WHERE kind = 'system'").fetchone()
        values = {"busy": busy, "system": system, "rows": rows, "users": users}
        connection.execute("BEGIN")
        for statement in STATEMENTS.split(";")[:-1]:
            connection.execute(statement, values)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
