"""The schema, one change a file in `sql/sqlite/NNNN_name.sql`, applied once and in order.

Each file runs statement by statement in one BEGIN IMMEDIATE together with its own record, so it is there as a whole or
not at all, also after a kill, and of three who migrate at once one does the work. (`executescript()` would commit.)
"""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from backend.errors import Unavailable
from backend.infrastructure.write_gate import write_lock

DIRECTORY = Path(__file__).parents[2] / "sql" / "sqlite"
RECORDS = """CREATE TABLE IF NOT EXISTS schema_migrations
    (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"""


class SchemaMismatch(Exception):
    """The database's schema is not this code's. The message is one line that says what to do."""


def migrate(path: Path, directory: Path = DIRECTORY, busy_timeout: float = 30.0) -> list[str]:
    """Bring the database at `path`, made if absent, to the newest schema; the names of what was applied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gate = write_lock(path)
    if not gate.acquire(busy_timeout):
        raise Unavailable("Another process is writing to the database.")
    try:
        return _migrate(path, directory, busy_timeout)
    finally:
        gate.release()


def check_schema(path: Path, directory: Path = DIRECTORY) -> None:
    """Raise SchemaMismatch unless exactly the files of `directory` have been applied to the database at `path`."""
    wanted = {_version(file) for file in _files(directory)}
    applied = _applied(path)
    if wanted - applied:
        raise SchemaMismatch(f"the schema of {path} is older than the code: run `python app.py migrate` first")
    if applied - wanted:
        raise SchemaMismatch(f"the schema of {path} is newer than the code: deploy the newer code")


def _migrate(path: Path, directory: Path, busy_timeout: float) -> list[str]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(RECORDS)
        return [file.stem for file in _files(directory) if _apply(connection, file)]
    finally:
        connection.close()


def _apply(connection: sqlite3.Connection, file: Path) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        new = not connection.execute("SELECT 1 FROM schema_migrations WHERE version = ?", (_version(file),)).fetchone()
        if new:
            for statement in _statements(file.read_text(encoding="utf-8")):
                connection.execute(statement)
            record = (_version(file), file.stem, int(time.time() * 1000))
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?, ?)", record)
        connection.execute("COMMIT")
        return new
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    """Split at the semicolons that end a statement: those inside a trigger's body do not."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement  # what has no semicolon is run as well, and so is a last comment


def _applied(path: Path) -> set[int]:
    if not path.exists():
        return set()
    connection = sqlite3.connect(path, timeout=30)
    try:
        return {version for (version,) in connection.execute("SELECT version FROM schema_migrations")}
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return set()
        raise
    finally:
        connection.close()


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def _version(file: Path) -> int:
    return int(file.name[:4])
