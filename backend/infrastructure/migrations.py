"""Migrations: each file `sql/sqlite/NNNN_name.sql` is one change of the schema, applied once and in order.

A file and the record that it was applied are one transaction: after an error or a kill, both are there or neither is.
BEGIN IMMEDIATE makes processes that migrate at the same time take turns, and the later ones find the records.
Statements run one by one, because `executescript()` would commit the transaction.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from urllib.parse import quote

from backend.errors import Unavailable
from backend.infrastructure.database import is_broken, is_fault
from backend.infrastructure.private_files import make_folder
from backend.settings import SettingsError

DIRECTORY = Path(__file__).parents[2] / "sql" / "sqlite"  # installed too, `sql` stands beside `backend`
MIGRATE = "run `python app.py migrate` (or `reference-backend migrate`) first"
RECORDS = """CREATE TABLE IF NOT EXISTS schema_migrations
    (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"""


class SchemaMismatch(Exception):
    """The database is absent or its schema is not that of the code. The message is one line that says what to do."""


def migrate(path: Path, directory: Path = DIRECTORY, busy_timeout: float = 30.0) -> list[str]:
    """Bring the database at `path` to the newest schema; create it if absent. Returns the names of the applied files.

    Raises SettingsError, with nothing created or changed, if `path` is not and cannot become a database of this
    service; SchemaMismatch if `directory` has no migrations; Unavailable if another process writes for longer than
    `busy_timeout` seconds; sqlite3.Error for a mistake in a migration.
    """
    files = migration_files(directory)
    with _settings_errors(path):
        _applied(path)  # raises for a database of another application, before anything is written
        make_folder(path.parent)
        with write_gate(path, busy_timeout):
            return _migrate(path, files, busy_timeout)


def check_database(path: Path, directory: Path = DIRECTORY) -> None:
    """`check_schema` for the start: also raises SettingsError if this process cannot use `path` as a database."""
    with _settings_errors(path):
        check_schema(path, directory)


def check_schema(path: Path, directory: Path = DIRECTORY) -> None:
    """Raise SchemaMismatch unless exactly the files of `directory` have been applied to the database at `path`."""
    wanted = migration_files(directory).keys()
    if not path.exists():
        raise SchemaMismatch(f"there is no database at {path.absolute()}: {MIGRATE}")
    applied = _applied(path)
    if wanted - applied:
        raise SchemaMismatch(f"the schema of {path} is older than the code: {MIGRATE}")
    if applied - wanted:
        raise SchemaMismatch(f"the schema of {path} is newer than the code: deploy the newer code")


def schema_version(directory: Path) -> int:
    """The version of the newest file of `directory`, which `check_schema` demands. Raises SchemaMismatch if none is."""
    return max(migration_files(directory))


def gate_of(path: Path) -> Path:
    """The file that production's writers lock with `flock` before they write to the database at `path`."""
    return path.with_name(f"{path.name}-gate")


@contextmanager
def write_gate(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """Keep other migrations and production's writers out while the block runs. Raises Unavailable, OSError.

    SQLite's own lock keeps writers apart, too. But SQLite 3.7.0 to 3.51.2 has the WAL-reset bug: a command that writes
    without this gate while a server is running might corrupt the database.
    """
    descriptor = os.open(gate_of(path), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + seconds
    try:
        while not locked(descriptor):
            if time.monotonic() > end:
                raise Unavailable("Another process is writing to the database.")
            time.sleep(0.001)
        yield
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Lock the open file unless another one holds its lock. Returns whether it is locked now."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _settings_errors(path: Path) -> Iterator[None]:
    """Raises SettingsError for a `path` that cannot be used, whether that shows before the block or inside it."""
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
        raise  # a mistake in a migration


def _unusable(path: Path, problem: str) -> SettingsError:
    must_be = "a database of this service, or a place for one, that this process may write"
    return SettingsError(f"DATABASE_URL was 'sqlite:///{path}' ({problem}); it must be {must_be}")


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open the file, which must exist: SQLite would create it with a mode that the umask decides."""
    uri = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)


def _migrate(path: Path, files: Mapping[int, Path], busy_timeout: float) -> list[str]:
    with suppress(FileExistsError):
        path.touch(0o600, exist_ok=False)  # SQLite gives its other files the same mode
    with closing(_connect(path, busy_timeout)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(RECORDS)
        return [file.stem for version, file in files.items() if _apply(connection, version, file)]


def _apply(connection: sqlite3.Connection, version: int, file: Path) -> bool:
    """Apply the file unless it has been applied. Returns whether it was applied now."""
    with connection:  # commits, or rolls back after an error
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM schema_migrations WHERE version = ?", (version,)).fetchone():
            return False
        for statement in _statements(file.read_text(encoding="utf-8")):
            connection.execute(statement)
        record = (version, file.stem, int(time.time() * 1000))
        connection.execute("INSERT INTO schema_migrations VALUES (?, ?, ?)", record)
        return True


def _statements(script: str) -> Iterator[str]:
    """Split the script after each line that completes a statement. SQLite knows which semicolons do."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement  # the rest: a statement without a semicolon, a comment, or nothing


def _applied(path: Path) -> set[int]:
    """The versions applied to the database at `path`; none if it is empty or absent.

    Raises SettingsError for a database of another application.
    """
    if not path.exists():
        return set()
    with closing(_connect(path, 30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return set()
        try:
            records = connection.execute("SELECT version, name, applied_at FROM schema_migrations").fetchall()
        except sqlite3.OperationalError as error:
            if is_fault(error):
                raise
            raise _unusable(path, "a database of another application") from None  # no such table or column
    return {version for version, _, _ in records}


def migration_files(directory: Path) -> dict[int, Path]:
    """The migrations by version, in order. Raises SchemaMismatch if there are none: the installation is incomplete."""
    files = sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    if not files:
        raise SchemaMismatch(f"there are no migration files in {directory}: the installation is incomplete")
    return {int(file.name[:4]): file for file in files}
