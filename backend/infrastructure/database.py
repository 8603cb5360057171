"""SQLite behind two verbs: `snapshot()` to read, `transaction()` to write.

A snapshot is several reads of one view (`BEGIN`), on a connection of the thread's own that cannot write (`query_only`).
A transaction is `BEGIN IMMEDIATE`: it takes the write lock before it reads, because a deferred read-then-write dies at
once with SQLITE_BUSY_SNAPSHOT, whatever the time-out. Writers wait for it at a gate, in order (`write_gate.py`), and
those of one process that have waited together are committed together (`group_commit.py`). Who has held the lock for as
long as `busy_timeout` is interrupted. Services open both; nothing slow (bcrypt, network, logs) happens inside one;
neither can be nested.

Faults of the database (busy, full, read-only, gone) become `Unavailable`; a broken constraint stays an
`sqlite3.IntegrityError`, but for a unique one, which is `Duplicate`.
"""

import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.domain import Timestamp
from backend.errors import Unavailable
from backend.infrastructure.connections import Connection, Connections, file_at
from backend.infrastructure.database_faults import is_broken, is_fault
from backend.infrastructure.group_commit import GroupCommit
from backend.infrastructure.transaction import Row, Tx
from backend.infrastructure.write_gate import WriteGate

log = logging.getLogger(__name__)

UNSEEN_SECONDS = 0.1  # of the file, before what is read from the cache: a look takes thrice as long as `data_version`


class Database:
    """Thread-safe."""

    def __init__(
        self, path: Path, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time, patient: int = 4
    ) -> None:
        self._connections = Connections(path, file_at(path))
        self._writers = GroupCommit(
            WriteGate(path, busy_timeout, patient), lambda: Connection(path, query_only=False),
            self._connections.check_file, self.now,
        )  # fmt: skip
        self._clock = clock

    def now(self) -> Timestamp:
        return Timestamp(int(self._clock() * 1000))

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        """Reads of one moment. Raises Unavailable."""
        with self._faults_mapped():
            sqlite = self._idle_connection().sqlite
            try:
                sqlite.execute("BEGIN")
                yield Tx(sqlite, self.now())
                sqlite.execute("COMMIT")
            finally:
                try:
                    if sqlite.in_transaction:
                        sqlite.execute("ROLLBACK")
                except BaseException:  # MemoryError too: its thread would stay inside the snapshot
                    self._connections.drop()
                    raise

    @contextmanager
    def transaction(self, patient: bool = False) -> Iterator[Tx]:
        """Reads and writes, all or nothing: commits at the end of the block, rolls back if it raises.

        Raises Unavailable: after `busy_timeout`, or sooner if many wait. Never sooner with `patient`, which is for a
        thread that no other request needs.
        """
        with self._faults_mapped():
            self._check_not_nested()
            with self._writers.transaction(patient=patient) as tx:
                yield tx
        for action in tx.actions:
            _logged(action)

    def version(self) -> tuple[int, int]:
        """Differs from what this thread got last time if anybody has committed since (`PRAGMA data_version`)."""
        (version,) = self.only_row("PRAGMA data_version")  # it is frozen inside a transaction
        return self._connections.opened, version

    def only_row(self, sql: str, **parameters: object) -> Row:
        """What a single statement finds, which is a snapshot of its own: for the cache. Raises Unavailable."""
        connection = self._idle_connection(UNSEEN_SECONDS)
        try:
            return connection.sqlite.execute(sql, parameters).fetchall()[0]
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise

    def check_writable(self, at_most: float = math.inf) -> None:
        """Raises Unavailable if a transaction cannot be had within `busy_timeout`, or within `at_most` seconds."""
        with self._faults_mapped():
            self._check_not_nested()
            with self._writers.transaction(at_most) as tx:  # BEGIN IMMEDIATE alone lets a read-only database pass
                tx.run("PRAGMA incremental_vacuum")  # a write, but of nothing

    def close(self) -> None:
        """Close this thread's connection, and the one for writing if nobody uses it."""
        self._connections.drop()
        self._writers.close()

    def _idle_connection(self, unseen_seconds: float = 0.0) -> Connection:
        self._check_not_nested()
        try:
            return self._connections.mine(unseen_seconds)
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise

    def _check_not_nested(self) -> None:
        if self._writers.inside or self._connections.in_transaction:
            raise RuntimeError("transactions do not nest")

    @contextmanager
    def _faults_mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._raise_fault(error)
            raise

    def _raise_fault(self, error: sqlite3.Error) -> None:
        """Raise Unavailable unless the error is the statement's own."""
        if not is_fault(error):
            return
        if is_broken(error):
            self._connections.drop()  # the next use opens a new one: recovery without a restart
        log.warning("database fault: %s (%s)", error, getattr(error, "sqlite_errorname", "?"))
        raise Unavailable("The database cannot do this just now.") from error


def _logged(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        log.exception("an after-commit action failed; the write stands")
