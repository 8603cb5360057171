"""Verify: whether a backup is good, before it is needed.

A backup that was never read back may be worthless. This reads all of it: first the seal (`seal.py`), which shows a
truncated or damaged file and a plain copy of a live database; then, read-only, what SQLite and the ledger can check.
400 MB take 4 s of CPU.

An intact backup of a database that was wrong has problems, one line each. It is what there is, so it is reported and
not refused; `restore` refuses it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from backend.domain import Timestamp
from backend.infrastructure.database import Tx
from backend.infrastructure.migrations import DIRECTORY, migration_files
from backend.operations.backup import faults_as_one_line
from backend.operations.seal import BackupError, check_seal
from backend.repositories import transactions


@dataclass(frozen=True)
class Verified:
    """What an intact backup holds. `rows` counts by table; `is_older` says that its schema is older than the code's."""

    moment: str
    size: int  # bytes
    schema: str
    is_older: bool
    rows: dict[str, int]
    problems: list[str]


def verify(file: Path) -> Verified:
    """Read the whole backup. Raises BackupError if it is damaged, no backup, or of a newer schema than the code's."""
    with faults_as_one_line(file):
        moment = check_seal(file)
        with _opened(file) as connection:
            schema, is_older = _schema_of(connection, file)
            rows = {
                table: _only(connection, f"SELECT count(*) FROM {table}")  # noqa: S608 - a table's name
                for table in _tables(connection)
            }
            return Verified(moment, file.stat().st_size, schema, is_older, rows, problems_of(connection))


def problems_of(connection: sqlite3.Connection) -> list[str]:
    """What is wrong in the database, one line each."""
    try:
        integrity = [line for (text,) in connection.execute("PRAGMA integrity_check") for line in text.splitlines()]
        foreign_keys = connection.execute('SELECT DISTINCT "table", parent FROM pragma_foreign_key_check').fetchall()
        ledger = transactions.unbalanced(Tx(connection, Timestamp(0)))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: a message with a damaged name
        return [f"integrity: {error}"]
    return [
        *(f"integrity: {line}" for line in integrity if line not in ("ok", "*** in database main ***")),
        *(f"foreign keys: a row of {table} refers to none of {parent}" for table, parent in foreign_keys),
        *(f"ledger: {line}" for line in ledger),
    ]


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Read-only, without locks, and without what may lie beside the file: the seal covers the file alone."""
    with closing(sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1", uri=True)) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")  # damaged names and ids can be shown too
        yield connection


def _schema_of(connection: sqlite3.Connection, file: Path) -> tuple[str, bool]:
    """The name of the newest migration, and whether the code has a newer one. Raises BackupError for a newer schema."""
    applied = dict(connection.execute("SELECT version, name FROM schema_migrations ORDER BY version"))
    known = migration_files(DIRECTORY).keys()
    newest = list(applied.values())[-1]
    if applied.keys() - known:
        raise BackupError(f"the schema of {file}, {newest}, is newer than the code: deploy the newer code first")
    return newest, bool(known - applied.keys())


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
    return [name for (name,) in connection.execute(query)]


def _only(connection: sqlite3.Connection, sql: str) -> int:
    ((value,),) = connection.execute(sql)
    return int(value)
