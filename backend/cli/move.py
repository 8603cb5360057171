"""Move an SQLite database of this service into an empty PostgreSQL database of the same schema.

The source is read under its write lock, so no write is missed while the block runs. COPY writes all tables in one
transaction, in which PostgreSQL checks every foreign key and constraint. It is rolled back if a table has another
number of rows or the ledger does not add up. A failed move has written nothing.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from backend.domain import Timestamp
from backend.errors import Conflict
from backend.infrastructure.database import connect
from backend.infrastructure.migrations import write_gate
from backend.postgres.database import PostgresTx
from backend.postgres.migrations import check_schema, first_line
from backend.postgres.pipeline import Pipeline
from backend.repositories import transactions

TABLES = (  # each after those that its rows refer to
    "users", "sessions", "refresh_tokens", "password_resets", "reset_requests", "products", "accounts", "transactions",
    "entries", "orders", "order_items", "idempotency_keys", "outbox", "deliveries", "audit", "mails",
)  # fmt: skip
SET_SEQUENCE = "SELECT setval(pg_get_serial_sequence('outbox', 'seq'), coalesce(max(seq), 0) + 1, false) FROM outbox"


def move(source: Path, url: str, progress: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Copy everything. Returns the number of rows of each table; `progress` is called with its name before the copy.

    The source's schema must be the code's. Raises SchemaMismatch if the target's is not, and SettingsError; Conflict,
    and writes nothing, if the target is not empty or does not take a row, or the copy differs from the source;
    Unavailable if the source is being written; sqlite3.Error.
    """
    check_schema(url)
    try:
        with write_gate(source), closing(connect(source, query_only=False)) as old, psycopg.connect(url) as new:
            old.execute("BEGIN IMMEDIATE")
            if _rows(new, "users") or _rows(new, "outbox"):
                raise Conflict("The PostgreSQL database is not empty.")
            moved = {table: _copy(table, old, new, progress) for table in TABLES}
            new.execute(SET_SEQUENCE)
            _check(moved, new)
    except psycopg.Error as error:
        raise Conflict(f"PostgreSQL has refused the move: {first_line(error)}") from error
    return moved


def _copy(table: str, old: sqlite3.Connection, new: psycopg.Connection[Any], progress: Callable[[str], None]) -> int:
    progress(table)
    rows = old.execute(f"SELECT * FROM {table}")
    columns = ", ".join(column for column, *_ in rows.description)
    copied = 0
    with new.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
            copied += 1
    return copied


def _check(moved: dict[str, int], new: psycopg.Connection[Any]) -> None:
    differing = [
        f"{table} has {found} rows, not {rows}" for table, rows in moved.items() if (found := _rows(new, table)) != rows
    ]
    if problems := differing + transactions.unbalanced(PostgresTx(Pipeline(new), Timestamp(0))):
        raise Conflict("; ".join(problems))


def _rows(new: psycopg.Connection[Any], table: str) -> int:
    ((rows,),) = new.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(rows)
