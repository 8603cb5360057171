"""The database: SQLite behind three verbs, `read()`, `snapshot()` and `transaction()`.

A read is a statement by itself and sees the latest commit. A snapshot is BEGIN: all its reads see one state of the
database. Both use a connection that cannot write (`query_only`). In WAL mode, which the migrations set, readers and the
writer do not wait for each other.

A transaction is BEGIN IMMEDIATE. It takes SQLite's write lock before its first read, so what was read still holds at
COMMIT. (A deferred transaction that reads and then writes fails with SQLITE_BUSY_SNAPSHOT, whatever the time-out.) At
the end of the block either all writes are on disk (`synchronous = FULL`), or none is. Effects outside the database wait
for the commit: `tx.after_commit`.

Each thread has its own connections, opened on first use and closed when the thread ends. The writers of one process
wait for a lock. Between processes SQLite's busy handler sleeps and tries again, which is right, but slow and unfair
when many write. Not promised: a fair order of writers, or use in a forked child. In production the writers of all
processes form a queue and share commits (production/database.py).
"""

import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import quote

from backend.domain import Timestamp
from backend.errors import Unavailable

log = logging.getLogger(__name__)

Row: TypeAlias = Any  # one row as a tuple; the SQL decides what its columns hold
STATEMENTS = 512  # prepared statements that a connection keeps; the service has fewer
WAL_LIMIT = 64 * 2**20  # bytes to which SQLite truncates the `-wal` when it restarts it
PRAGMAS = ("synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF", f"journal_size_limit = {WAL_LIMIT}")
UNAVAILABLE = "The database cannot do this just now."
UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}
# Faults become Unavailable; all other errors are the statement's. A transient fault leaves the connection open: closing
# the last connection deletes the `-shm` file, and on a full disk a new connection could not create it again.
TRANSIENT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL}
TRANSIENT |= {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
BROKEN |= {sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Duplicate(Exception):
    """The statement would have broken a unique constraint; it changed nothing.

    The transaction must end with an error then: PostgreSQL runs no further statement of it, and cannot commit it.
    """


class Tx:
    """An open transaction: runs SQL with `:name` parameters. `now` is its one time. Used by one thread.

    A rule that depends on rows reads them with `for_update`, in the order of their ids, or takes a `lock` first. Here
    both do nothing, because SQLite has one writer at a time. PostgreSQL has many (postgres/database.py).
    """

    for_update = ""  # appended to a SELECT, it locks the rows until the transaction ends

    def __init__(self, connection: sqlite3.Connection, now: Timestamp) -> None:
        self.now, self.over = now, False
        self._connection = connection
        self._actions: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True

    def run(self, sql: str, **parameters: object) -> int:
        """Run one statement and return the number of rows that it changed. Raises Duplicate."""
        return self._run(self._connection.execute, sql, parameters).rowcount

    def write(self, sql: str, **parameters: object) -> None:
        """Run one statement of which only the effect matters.

        PostgreSQL gets it together with the next statement or the COMMIT, which then raises its errors.
        """
        self.run(sql, **parameters)

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, object]]) -> int:
        """Run one statement for each set of parameters, and return as `run` for all together. Raises Duplicate."""
        return self._run(self._connection.executemany, sql, parameters).rowcount

    def row(self, sql: str, **parameters: object) -> Row | None:
        """The first row, or None. Raises Duplicate."""
        return next(iter(self.rows(sql, **parameters)), None)

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        """All rows at once: a cursor that is not read to its end would keep the snapshot open. Raises Duplicate."""
        return self._run(self._connection.execute, sql, parameters).fetchall()

    def rows_for(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """The rows for many ids: `IN (:ids)` becomes one parameter for each id. Without ids nothing is run."""
        names = {f"id{n}": value for n, value in enumerate(ids)}
        return self.rows(sql.replace(":ids", ", ".join(f":{name}" for name in names)), **names) if names else []

    def lock(self, name: str) -> None:
        """From the next statement on, transactions that lock the same name wait until this one ends."""

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the commit has succeeded. Its errors are logged and not raised: the write stands."""
        self._actions.append(action)

    def run_after_commit(self) -> None:
        """Run the actions in order. Only Database calls this."""
        for action in self._actions:
            try:
                action()
            except Exception:
                log.exception("an after-commit action failed; the write stands")

    def _run(self, execute: Callable[[str, Any], sqlite3.Cursor], sql: str, parameters: object) -> sqlite3.Cursor:
        if self.over:
            raise RuntimeError("this transaction is over")
        try:
            return execute(sql, parameters)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in UNIQUE:
                raise Duplicate from error
            raise


class Database:
    """Thread-safe. `busy_timeout` is in seconds; `clock` returns Unix time in seconds.

    After each transaction, its thread calls every function of `on_write` with the seconds that it waited for the write
    lock, and those that it held it. They must not raise: the transaction may be committed.
    """

    def __init__(self, path: Path, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        self._path, self._busy_timeout, self._clock = path, busy_timeout, clock
        self._thread, self._write_lock = PerThread(), threading.Lock()
        self.on_write: list[Callable[[float, float], None]] = []

    def now(self) -> Timestamp:
        """Milliseconds since 1970."""
        return Timestamp(int(self._clock() * 1000))

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Run single reads, each of which sees the latest commit. Raises Unavailable; RuntimeError inside a block."""
        with self._block(), Tx(self._connection(query_only=True), self.now()) as tx:
            yield tx

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """Read one state of the database. Raises Unavailable; RuntimeError inside another block of this thread."""
        with self._block(), self._begun(self._connection(query_only=True), "BEGIN") as tx:
            yield tx

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Read and write, all or nothing: commits at the end of the block, rolls back if it raises.

        Raises Unavailable, also if the lock stays busy for `busy_timeout`; RuntimeError inside another block.
        """
        with self._block(), self._write(self._busy_timeout) as tx:
            yield tx
        tx.run_after_commit()

    def check_writable(self, at_most: float = math.inf) -> None:
        """Raises Unavailable if no transaction can write within `busy_timeout`, or within `at_most` seconds."""
        with self._block(), self._write(min(at_most, self._busy_timeout)) as tx:
            tx.run("PRAGMA incremental_vacuum")  # changes nothing, but fails in a read-only database

    def empty_wal(self) -> None:
        """Copy the `-wal` into the database and truncate it, unless a writer works or a reader needs it.

        Waits for no lock, but writers wait while it copies: 1 s for some 500 MB. Raises Unavailable.
        """
        with self._block():
            if self._write_lock.acquire(blocking=False):
                try:
                    empty_wal(self._connection(query_only=False))
                finally:
                    self._write_lock.release()

    def dedicate_thread(self) -> None:
        """Mark the calling thread as one that serves no reads. Production lets its writes wait longer."""

    def close(self) -> None:
        """Close this thread's connections; the next use opens others."""
        self._thread.connections.close()

    @contextmanager
    def _write(self, seconds: float) -> Iterator[Tx]:
        asked, began = time.monotonic(), math.inf
        if not self._write_lock.acquire(timeout=seconds):
            raise Unavailable("Too many requests are waiting to write.")
        try:
            connection = self._connection(query_only=False)
            set_busy_timeout(connection, asked + seconds)
            with self._begun(connection, "BEGIN IMMEDIATE") as tx:
                began = time.monotonic()
                yield tx
        finally:
            self._write_lock.release()
            if began < math.inf:
                self._tell_listeners(asked, began)

    def _tell_listeners(self, asked: float, began: float) -> None:
        held = time.monotonic() - began
        for listener in self.on_write:
            listener(began - asked, held)

    @contextmanager
    def _begun(self, connection: sqlite3.Connection, begin: str) -> Iterator[Tx]:
        try:
            connection.execute(begin)
            with Tx(connection, self.now()) as tx:  # under the write lock: times follow the order of commits
                yield tx
            connection.execute("COMMIT")
        except BaseException:
            if not rolled_back(connection):
                self._thread.connections.close()
            raise

    @contextmanager
    def _block(self) -> Iterator[None]:
        """One block at a time in a thread. The engine's faults become Unavailable."""
        if self._thread.inside:
            raise RuntimeError("transactions do not nest")
        self._thread.inside = True
        try:
            yield
        except Exception as error:
            self._check_fault(error)
            raise
        finally:
            self._thread.inside = False

    def _check_fault(self, error: Exception) -> None:
        """Raises Unavailable for a fault, and closes connections that may be unusable after it."""
        if is_broken(error):
            self._thread.connections.close()
        if is_fault(error):
            log.warning("database fault: %s (%s)", error, getattr(error, "sqlite_errorname", ""))
            raise Unavailable(UNAVAILABLE) from error

    def _connection(self, query_only: bool) -> sqlite3.Connection:
        """This thread's connection, opened on first use."""
        mine = self._thread.connections
        if query_only not in mine:
            mine[query_only] = connect(self._path, query_only)
        return mine[query_only]


class _Connections(dict[bool, sqlite3.Connection]):
    """One thread's connections by `query_only`. `__del__` closes them as soon as the thread ends."""

    def close(self) -> None:
        while self:
            self.popitem()[1].close()

    __del__ = close


class PerThread(threading.local):
    """The state of one thread."""

    def __init__(self) -> None:
        self.inside = False
        self.connections = _Connections()


def file_at(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path, query_only: bool) -> sqlite3.Connection:
    """A connection to the file at `path`, which must exist (`mode=rw`).

    In WAL mode the connection keeps SQLite's shared lock from its first read on, so a program that takes the exclusive
    lock before it replaces the file cannot replace it under an open connection. Raises Unavailable if the file was
    replaced before that first read; sqlite3.OperationalError if there is none.
    """
    before = file_at(path)
    file = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(
        file, uri=True, isolation_level=None, cached_statements=STATEMENTS, check_same_thread=False
    )
    try:
        for pragma in (*PRAGMAS, f"query_only = {query_only}"):  # the first one reads the schema, and so takes the lock
            connection.execute(f"PRAGMA {pragma}")
        if file_at(path) != before:
            raise Unavailable("The database file was replaced.")
    except (sqlite3.Error, Unavailable):
        connection.close()
        raise
    return connection


def set_busy_timeout(connection: sqlite3.Connection, end: float) -> None:
    """Make statements wait for SQLite's locks until `end` (monotonic seconds)."""
    connection.execute(f"PRAGMA busy_timeout = {max(0, math.ceil((end - time.monotonic()) * 1000))}")


def empty_wal(connection: sqlite3.Connection) -> None:
    """Checkpoint and truncate the `-wal`; only checkpoint what no reader needs if another connection is busy."""
    set_busy_timeout(connection, 0)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def rolled_back(connection: sqlite3.Connection) -> bool:
    """Roll back the transaction, if one is open. False if that fails: then only closing it frees its lock."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except BaseException:  # also on MemoryError
        return False
    return True


def is_fault(error: BaseException, codes: set[int] = TRANSIENT | BROKEN) -> bool:
    """Whether a lock, the disk or the file caused the error, and not the statement."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code in codes or code & 0xFF in codes  # the lowest byte of an extended code is its primary code


def is_broken(error: BaseException) -> bool:
    """Whether the connection may be unusable after the error."""
    return is_fault(error, BROKEN) and not is_fault(error, TRANSIENT)
