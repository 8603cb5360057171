"""The schema, one change a file in `sql/sqlite/NNNN_name.sql`, applied once and in order.

Each file runs statement by statement in one BEGIN IMMEDIATE together with its own record, so it is there as a whole or
not at all, also after a kill, and of three who migrate at once one does the work. (`executescript()` would commit.)
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from backend.errors import Unavailable
from backend.infrastructure.database_faults import is_broken, is_fault
from backend.infrastructure.private_files import make_folder
from backend.infrastructure.write_gate import write_lock
from backend.settings import SettingsError

DIRECTORY = Path(__file__).parents[2] / "sql" / "sqlite"  # installed too, `sql` stands beside `backend`
MIGRATE = "run `python app.py migrate` (or `reference-backend migrate`) first"
RECORDS = """CREATE TABLE IF NOT EXISTS schema_migrations
    (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"""


class SchemaMismatch(Exception):
    """The database is not there, or its schema is not this code's. The message is one line that says what to do."""


def migrate(path: Path, directory: Path = DIRECTORY, busy_timeout: float = 30.0) -> list[str]:
    """Bring the database at `path`, made if absent, to the newest schema; the names of what was applied.

    Raises SettingsError, having made and changed nothing, if there can be no database of ours at `path`; SchemaMismatch
    if `directory` has no migrations; Unavailable if another process keeps writing.
    """
    files = _files(directory)
    with _named_if_unusable(path):
        _applied(path)  # before anything is written: what is there may be another application's
        make_folder(path.parent)
        gate = write_lock(path)
        if not gate.acquire(busy_timeout):
            raise Unavailable("Another process is writing to the database.")
        try:
            return _migrate(path, files, busy_timeout)
        finally:
            gate.release()


def check_database(path: Path, directory: Path = DIRECTORY) -> None:
    """For the start: `check_schema`, and SettingsError if `path` is no database that this process may write."""
    with _named_if_unusable(path):
        check_schema(path, directory)


def check_schema(path: Path, directory: Path = DIRECTORY) -> None:
    """Raise SchemaMismatch unless exactly the files of `directory` have been applied to the database at `path`."""
    wanted = {_version(file) for file in _files(directory)}
    if not path.exists():
        raise SchemaMismatch(f"there is no database at {path.absolute()}: {MIGRATE}")
    applied = _applied(path)
    if wanted - applied:
        raise SchemaMismatch(f"the schema of {path} is older than the code: {MIGRATE}")
    if applied - wanted:
        raise SchemaMismatch(f"the schema of {path} is newer than the code: deploy the newer code")


@contextmanager
def _named_if_unusable(path: Path) -> Iterator[None]:
    """What the operating system or SQLite says against `path`, as SettingsError."""
    try:
        if path.is_symlink() and not path.exists():
            raise _unusable(path, "a link to nothing")
        if path.exists() and not path.is_file():
            raise _unusable(path, "not a file")
        for place in (path.parent, path):
            if place.exists() and not os.access(place, os.R_OK | os.W_OK):
                raise _unusable(path, f"{place} may not be written")
        yield
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except sqlite3.Error as error:
        if is_broken(error):
            raise _unusable(path, str(error)) from None
        if is_fault(error):
            raise Unavailable(f"The database at {path} cannot be used just now: {error}") from error
        raise  # the migration's own mistake


def _unusable(path: Path, problem: str) -> SettingsError:
    must_be = "a database of this service, or a place for one, that this process may write"
    return SettingsError(f"DATABASE_URL was 'sqlite:///{path}' ({problem}); it must be {must_be}")


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    """mode=rw: SQLite would make the file where it is absent, open to all who may read the folder."""
    uri = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)


def _migrate(path: Path, files: list[Path], busy_timeout: float) -> list[str]:
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite's companions take over the mode
    connection = _connect(path, busy_timeout)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(RECORDS)
        return [file.stem for file in files if _apply(connection, file)]
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
    """The versions in the database at `path`; none if it is empty or absent. SettingsError if it is not ours."""
    if not path.exists():
        return set()
    connection = _connect(path, 30)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return set()
        return {
            version for version, _, _ in connection.execute("SELECT version, name, applied_at FROM schema_migrations")
        }
    except sqlite3.OperationalError as error:
        if is_fault(error):
            raise
        raise _unusable(path, "a database of another application") from None  # there is no such table or column
    finally:
        connection.close()


def _files(directory: Path) -> list[Path]:
    """The migrations in order. None at all is a broken installation, not a service without tables."""
    files = sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not files:
        raise SchemaMismatch(f"there are no migration files in {directory}: the installation is incomplete")
    return files


def _version(file: Path) -> int:
    return int(file.name[:4])
