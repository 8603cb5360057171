"""SQLite behind two verbs: `snapshot()` to read, `transaction()` to write.

A snapshot is several reads of one view (`BEGIN`, `query_only`). A transaction is `BEGIN IMMEDIATE`: it takes the write
lock before it reads, because a deferred read-then-write dies at once with SQLITE_BUSY_SNAPSHOT, whatever the time-out.
Services open them; nothing slow (bcrypt, network, logs) happens inside one; neither can be nested.

Each thread has one connection, opened on first use and never carried over a fork. Faults of the database (busy, full,
read-only, gone) become `Unavailable`; a broken constraint stays an `sqlite3.IntegrityError`.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from backend.domain import Timestamp
from backend.errors import Unavailable

Row: TypeAlias = Any  # one row as a tuple; what its columns hold is the SQL's business

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
FAULTS = BUSY | {
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
PRAGMAS = (
    "synchronous = FULL",  # an answered write is on disk, power loss included
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "query_only = ON",  # lifted by transaction() alone
)

UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}

log = logging.getLogger(__name__)


class Duplicate(Exception):
    """The statement would have made two rows alike that must differ; it changed nothing."""


class Transaction:
    """What repositories get as `tx`: SQL with `:name` parameters, and one time for the whole transaction."""

    __slots__ = ("_after_commit", "_connection", "now")

    def __init__(self, connection: sqlite3.Connection, now: Timestamp) -> None:
        self._connection = connection
        self._after_commit: list[Callable[[], None]] = []
        self.now = now

    def run(self, sql: str, **parameters: object) -> int:
        """Run one statement; the number of rows it changed. Raises Duplicate."""
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in UNIQUE:
                raise Duplicate from error
            raise

    def row(self, sql: str, **parameters: object) -> Row | None:
        """The first row, or None. The rest is read too: an open cursor would hold the snapshot."""
        rows = self._connection.execute(sql, parameters).fetchall()
        return rows[0] if rows else None

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def rows_for(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """The rows for many ids at once: `IN (:ids)` becomes as many parameters as there are ids. No ids, no query."""
        if not ids:
            return []
        names = ", ".join(f":id{n}" for n in range(len(ids)))
        return self.rows(sql.replace(":ids", names), **{f"id{n}": value for n, value in enumerate(ids)})

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the commit has succeeded; what it raises is logged, for the write stands."""
        self._after_commit.append(action)


BeforeCommit = Callable[[Transaction], Callable[[], None]]


class Database:
    """Thread-safe; `before_commit` hooks see every write transaction last and return what to do once it is committed."""

    def __init__(self, path: Path, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.before_commit: list[BeforeCommit] = []
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._mine = _ThreadState()

    def now(self) -> Timestamp:
        return Timestamp(int(self._clock() * 1000))

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Reads of one moment. Raises Unavailable."""
        with self._begun("BEGIN") as connection:
            yield Transaction(connection, self.now())

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Reads and writes, all or nothing: commits at the end of the block, rolls back if it raises."""
        connection = self._connection()
        connection.execute("PRAGMA query_only = OFF")
        try:
            with self._begun("BEGIN IMMEDIATE") as connection:
                tx = Transaction(connection, self.now())  # after the lock: times follow the order of commits
                yield tx
                committed = [hook(tx) for hook in self.before_commit]
        finally:
            connection.execute("PRAGMA query_only = ON")
        for action in committed + tx._after_commit:
            _logged(action)

    def version(self) -> tuple[int, int]:
        """Differs from what this thread got last time if anybody else has committed since (`PRAGMA data_version`)."""
        connection = self._connection()
        if connection.in_transaction:
            raise RuntimeError("data_version is frozen inside a transaction")
        with _faults_mapped(self):
            return self._mine.opened, connection.execute("PRAGMA data_version").fetchone()[0]

    def check_writable(self) -> None:
        """Raises Unavailable if a transaction cannot be had."""
        with self.transaction():
            pass

    def close(self) -> None:
        """Close this thread's connection."""
        self._mine.close()

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        if connection.in_transaction:
            raise RuntimeError("transactions do not nest")
        with _faults_mapped(self):
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:  # not so after SQLITE_FULL, which has rolled back by itself
                    connection.execute("ROLLBACK")

    def _connection(self) -> sqlite3.Connection:
        mine = self._mine
        if mine.process != os.getpid():
            mine.forget()
        if mine.connection is None:
            with _faults_mapped(self):
                mine.connection = self._open()
                mine.opened += 1  # versions of two connections must not be compared
        return mine.connection

    def _open(self) -> sqlite3.Connection:
        # mode=rw: a vanished file is an error, not a new and empty database.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", uri=True, isolation_level=None, timeout=self._busy_timeout,
            cached_statements=512, check_same_thread=False,
        )  # fmt: skip
        try:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


class _ThreadState(threading.local):
    """This thread's connection and the process that opened it; closed when the thread ends."""

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None
        self.process = os.getpid()
        self.opened = 0
        self._inherited: list[sqlite3.Connection] = []

    def close(self) -> None:
        if self.connection is not None and self.process == os.getpid():
            self.connection.close()
            self.connection = None

    def forget(self) -> None:
        """After a fork: the parent's connection must be neither used nor closed here, so it is kept aside."""
        if self.connection is not None:
            self._inherited.append(self.connection)
        self.connection, self.process = None, os.getpid()


@contextmanager
def _faults_mapped(database: Database) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code not in FAULTS:
            raise
        log.warning("database fault: %s (%s)", error, getattr(error, "sqlite_errorname", "?"))
        if code not in BUSY:
            database.close()  # the next use opens a new one: recovery without a restart
        raise Unavailable("The database cannot do this just now.") from error


def _logged(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        log.exception("an after-commit action failed; the write stands")
