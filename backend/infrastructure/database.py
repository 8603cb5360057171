"""SQLite behind two verbs: `snapshot()` to read, `transaction()` to write.

A snapshot is several reads of one view (`BEGIN`, `query_only`). A transaction is `BEGIN IMMEDIATE`: it takes the write
lock before it reads, because a deferred read-then-write dies at once with SQLITE_BUSY_SNAPSHOT, whatever the time-out.
Services open them; nothing slow (bcrypt, network, logs) happens inside one; neither can be nested.

The gate. SQLite's own busy handler sleeps and asks again, unfairly. So before BEGIN IMMEDIATE every writer takes a lock
that is a queue (`file_lock.py`), and keeps it until COMMIT has returned. One budget, `busy_timeout`, covers the wait
for gate and lock together; who holds them is interrupted after as long. Only `patient` threads may wait for all of it,
the others for a tenth, and not at all once somebody has waited in vain, so that reads are served while an outsider sits
on the lock. As every writer (and with it every checkpoint) of ours takes the gate, no checkpoint overlaps another
connection's commit, which is what SQLite's WAL-reset bug needs (3.7.0 to 3.51.2: a lost or corrupt page).

Faults of the database (busy, full, read-only, gone) become `Unavailable`; a broken constraint stays an
`sqlite3.IntegrityError`, but for a unique one, which is `Duplicate`.
"""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backend.domain import Timestamp
from backend.errors import Unavailable
from backend.infrastructure.connections import Connection, Connections, file_at
from backend.infrastructure.database_faults import is_broken, is_passing
from backend.infrastructure.file_lock import FileLock
from backend.infrastructure.transaction import Transaction

log = logging.getLogger(__name__)

UNSEEN_SECONDS = 0.1  # of the file, before what is read from the cache: a look takes thrice as long as `data_version`
BeforeCommit = Callable[[Transaction], Callable[[], None]]


class Database:
    """Thread-safe; `before_commit` hooks see each write transaction last and return what to do after its commit."""

    def __init__(
        self, path: Path, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time, patient: int = 4
    ) -> None:
        self.before_commit: list[BeforeCommit] = []
        self._connections = Connections(path, file_at(path))
        self._gate = write_gate(path)
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._stuck = False  # somebody has waited at the gate in vain, and nobody has had the lock since
        self._patience = threading.BoundedSemaphore(patient)

    def now(self) -> Timestamp:
        return Timestamp(int(self._clock() * 1000))

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Reads of one moment. Raises Unavailable."""
        with self._faults_mapped():
            connection = self._idle_connection()
            with _begun(connection.sqlite, "BEGIN"):
                yield Transaction(connection.sqlite, self.now())

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Reads and writes, all or nothing: commits at the end of the block, rolls back if it raises."""
        with self._faults_mapped():
            connection = self._idle_connection()
            with self._writing(connection) as got_lock, _begun(connection.sqlite, "BEGIN IMMEDIATE"):
                got_lock()
                self._stuck = False
                tx = Transaction(connection.sqlite, self.now())  # after the lock: times follow the order of commits
                yield tx
                committed = [hook(tx) for hook in self.before_commit]
                self._connections.check_file()  # it may have gone while we waited
        for action in committed + tx.actions:
            _logged(action)

    def version(self) -> tuple[int, int]:
        """Differs from what this thread got last time if anybody else has committed since (`PRAGMA data_version`)."""
        connection = self._idle_connection(UNSEEN_SECONDS)  # idle: it is frozen inside a transaction
        try:
            return self._connections.opened, connection.sqlite.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise

    def check_writable(self) -> None:
        """Raises Unavailable if a transaction cannot be had."""
        with self.transaction() as tx:  # BEGIN IMMEDIATE alone lets a read-only database pass
            tx.run("PRAGMA incremental_vacuum")  # a write, but of nothing

    def close(self) -> None:
        """Close this thread's connection."""
        self._connections.drop()

    def _idle_connection(self, unseen_seconds: float = 0.0) -> Connection:
        try:
            connection = self._connections.mine(unseen_seconds)
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise
        if connection.sqlite.in_transaction:
            raise RuntimeError("transactions do not nest")
        return connection

    @contextmanager
    def _writing(self, connection: Connection) -> Iterator[Callable[[], None]]:
        """Through the gate, and allowed to write; what is left of the budget is for SQLite's own lock.

        Yields what to call with that lock in hand: the thread has a place among the patient until then.
        """
        end = time.monotonic() + self._busy_timeout
        with ExitStack() as waiting:
            self._pass_gate(waiting)
            try:
                now = time.monotonic()
                connection.sqlite.execute(f"PRAGMA busy_timeout = {max(0, int((end - now) * 1000))}")
                connection.sqlite.execute("PRAGMA query_only = OFF")
                connection.deadline = max(end, now) + self._busy_timeout
                yield waiting.close
            finally:
                connection.deadline = math.inf
                try:
                    connection.sqlite.execute("PRAGMA query_only = ON")
                finally:  # even if the connection is lost: kept shut, the gate would end all writing
                    self._gate.release()

    def _pass_gate(self, waiting: ExitStack) -> None:
        """Raises Unavailable; takes a place among the patient, if there is one, for as long as `waiting` is open."""
        seconds = 0.0 if self._stuck else self._busy_timeout / 10
        if self._patience.acquire(blocking=False):
            waiting.callback(self._patience.release)
            seconds = self._busy_timeout
        try:
            passed = self._gate.acquire(seconds)
        except OSError as error:  # the gate's folder is gone, full or read-only
            raise Unavailable("The database cannot do this just now.") from error
        if not passed:
            self._stuck = True
            raise Unavailable("Too many are waiting to write.")

    @contextmanager
    def _faults_mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise

    def _raise_fault(self, error: sqlite3.Error) -> None:
        """Raise Unavailable unless the error is the statement's own."""
        if is_broken(error):
            self._connections.drop()  # the next use opens a new one: recovery without a restart
        elif not is_passing(error):
            return
        log.warning("database fault: %s (%s)", error, getattr(error, "sqlite_errorname", "?"))
        raise Unavailable("The database cannot do this just now.") from error


def write_gate(path: Path) -> FileLock:
    """The lock that everything which writes to the database at `path` takes."""
    return FileLock(path.with_name(f"{path.name}-gate"))


@contextmanager
def _begun(sqlite: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        sqlite.execute(begin)
        yield
        sqlite.execute("COMMIT")
    finally:
        if sqlite.in_transaction:  # not so after SQLITE_FULL, which has rolled back by itself
            sqlite.execute("ROLLBACK")


def _logged(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        log.exception("an after-commit action failed; the write stands")
