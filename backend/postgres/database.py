"""The database on PostgreSQL: the verbs of `infrastructure/database.py` over psycopg.

`read()` is autocommit: one statement costs one round trip. A snapshot is REPEATABLE READ, READ ONLY. A transaction is
READ COMMITTED, and there are many at a time: where a rule depends on what was read, the repository reads with
`tx.for_update`, or the service takes `tx.lock(name)` first. Locks that cross raise Contention: the request is run again
(`web/middleware.py:dispatch`). Keys that two requests may insert at once belong to a row that both lock first.

Each thread has one connection, opened on first use and closed when the thread ends (a pool's checkout costs more than a
read). A connection that the server has closed meanwhile, or that was idle for IDLE_SECONDS and is lost, is replaced
before its next use, so it costs no request.

A network loses packets silently, and a server may hang. So each wait is bounded:

    a block           `busy_timeout` + WORK_SECONDS, of which each wait for a lock may take `busy_timeout`
    a dead link       CLIENT: the kernel gives a connection up if the server's answers to its packets stay away for 3 s
    a new connection  half of `busy_timeout` for each address of the server. If that passes, all threads get Unavailable
                      at once for RETRY_SECONDS. Otherwise each request in the queue would wait as long.
    a silent client   SERVER: the server ends an open transaction, and so its locks, after `busy_timeout` without a
                      statement, and a connection of a host that is gone within 11 s

Not promised: that a write whose COMMIT got no answer was not made. Then Unavailable says so. The lookup of the server's
name is the system's, and is not bounded here.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGresult

from backend.domain import Timestamp
from backend.errors import Contention, Unavailable
from backend.infrastructure.database import UNAVAILABLE, Database, Duplicate, Row, Tx
from backend.postgres.pipeline import Pipeline, Statement

log = logging.getLogger(__name__)

IN_IDS, ANY_OF_IDS = "IN (:ids)", "= ANY(:ids)"
RETRIED = (errors.SerializationFailure, errors.DeadlockDetected)
FAULTS = (psycopg.OperationalError, errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout)
UNKNOWN = "The database did not answer. Whether this was written is unknown: repeat it with the same Idempotency-Key."
RETRY_SECONDS = 1.0
IDLE_SECONDS = 1.0  # after which a connection is tried before its next use
TRY_SECONDS = 1.0
WORK_SECONDS = 2.0
CLIENT: dict[str, Any] = {
    "application_name": "reference-backend",
    "keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3, "tcp_user_timeout": 3000,
}  # fmt: skip
SERVER = {
    "tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": 11_000,
    "random_page_cost": 1.1,  # of memory or an SSD; the default, a spinning disk's, scans tables instead of indexes
}  # fmt: skip


class PostgresTx(Tx):
    """An open transaction, or the single statements of `read()`. Used by one thread. `begin` is its first statement."""

    def __init__(self, pipeline: Pipeline, now: Timestamp, for_update: str = "", begin: str = "") -> None:
        super().__init__(pipeline, now)  # type: ignore[arg-type]  # the core's is a connection of sqlite3
        self.for_update = for_update
        self._pipeline = pipeline
        self._queue: list[Statement] = [(begin, {})] if begin else []  # travels with the next statement

    def run(self, sql: str, **parameters: object) -> int:
        return self.run_each(sql, [parameters])

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, object]]) -> int:
        results = self.send([(sql, each) for each in parameters])
        return sum(result.command_tuples or 0 for result in results)

    def write(self, sql: str, **parameters: object) -> None:
        self._queue.append((sql, parameters))

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        return self._pipeline.rows(self.send([(sql, parameters)])[0])

    def rows_for(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """The rows for many ids: `IN (:ids)` becomes `= ANY`, which has one plan for every number of ids."""
        return self.rows(sql.replace(IN_IDS, ANY_OF_IDS), ids=list(ids)) if ids else []

    def lock(self, name: str) -> None:
        self.write("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))", name=name)

    def send(self, statements: Sequence[Statement] = ()) -> list[PGresult]:
        """Run the queue, then these: their results. After an error the transaction is over, and cannot commit."""
        if self.over:
            raise RuntimeError("this transaction is over")
        queued, self._queue, self.over = self._queue, [], True
        try:
            results = self._pipeline.run([*queued, *statements])
        except errors.UniqueViolation as error:
            raise Duplicate from error
        self.over = False
        return results[len(queued) :]

    def commit(self) -> None:
        """Raises Unavailable, which says for a transaction without an answer that the outcome is unknown."""
        try:
            self.send([("COMMIT", {})])
        except psycopg.OperationalError as error:
            if self.for_update and not self._pipeline.usable:  # else the server has refused what travelled with it
                raise Unavailable(UNKNOWN) from error
            raise


class PostgresDatabase(Database):
    """Thread-safe. `busy_timeout`, in seconds, bounds each wait for a lock; the module's docstring lists the others.

    Parameters of `url` come before those that this class sets. `clock` returns Unix time in seconds.
    """

    def __init__(self, url: str, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        super().__init__(Path(), busy_timeout, clock)
        self._mine, self._retry_at, self._seconds = _Mine(), 0.0, busy_timeout + WORK_SECONDS
        busy = math.ceil(busy_timeout * 1000)
        limits = SERVER | {"lock_timeout": busy, "idle_in_transaction_session_timeout": busy}
        limits |= {"statement_timeout": math.ceil(self._seconds * 1000)}
        given: dict[str, Any] = conninfo_to_dict(url)
        given["options"] = " ".join([*(f"-c {name}={limits[name]}" for name in limits), given.get("options", "")])
        seconds = max(2, int(busy_timeout / 2))  # psycopg takes whole seconds, and two at least
        self._parameters = CLIENT | {"connect_timeout": seconds} | given

    @contextmanager
    def autocommit(self) -> Iterator[Tx]:
        """Run single statements, each of which commits by itself."""
        with self._block(), PostgresTx(self._block_connection(), self.now()) as tx:
            yield tx
            tx.send()

    read = autocommit

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        with self._block(), self._begun_at("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as tx:
            yield tx

    def check_writable(self, at_most: float = math.inf) -> None:
        """Raises Unavailable if no transaction can write: the server is gone, or is a read-only replica."""
        with self.transaction() as tx:
            tx.write("SELECT set_config('lock_timeout', :most, true)", most=f"{min(at_most, self._busy_timeout)}s")
            # A write of no row: a host that is cut off meanwhile must not hold a lock that other hosts' probes need.
            tx.run(f"SELECT 1 FROM schema_migrations WHERE version = 0{tx.for_update}")

    def close(self) -> None:
        if self._mine.pipeline:
            self._mine.pipeline.close()

    def keep_no_connection(self) -> None:
        """The calling thread closes its connection now, and from now on at the end of each block."""
        self._mine.brief = True
        self.close()

    @contextmanager
    def _block(self) -> Iterator[None]:
        with super()._block():
            try:
                yield
            finally:
                if self._mine.brief:
                    self.close()

    @contextmanager
    def _write(self, seconds: float) -> Iterator[Tx]:
        """`seconds` is not used: `lock_timeout` bounds each wait for a lock. Listeners get the waits as time held."""
        began = time.monotonic()
        try:
            with self._begun_at("BEGIN", " FOR NO KEY UPDATE") as tx:
                yield tx
        finally:
            self._tell_listeners(began, began)

    @contextmanager
    def _begun_at(self, begin: str, for_update: str = "") -> Iterator[PostgresTx]:
        pipeline = self._block_connection()
        try:
            with PostgresTx(pipeline, self.now(), for_update, begin) as tx:
                yield tx
                tx.commit()
        except BaseException:
            pipeline.roll_back()
            raise

    def _check_fault(self, error: Exception) -> None:
        """Raises Contention for a lost race, and Unavailable for a fault of the server."""
        if isinstance(error, RETRIED):
            raise Contention from error
        if isinstance(error, FAULTS):
            self.close()
            log.warning("database fault: %s", type(error).__name__)
            raise Unavailable(UNAVAILABLE) from error

    def _block_connection(self) -> Pipeline:
        """This thread's connection, for the block that begins now; a new one if there is none, or it is lost."""
        mine = self._mine.pipeline
        if mine is None or not mine.usable or (mine.idle_seconds > IDLE_SECONDS and not mine.answers(TRY_SECONDS)):
            self.close()
            mine = self._mine.pipeline = self._connect()
        mine.deadline = time.monotonic() + self._seconds
        return mine

    def _connect(self) -> Pipeline:
        if time.monotonic() < self._retry_at:
            raise Unavailable("The database does not answer.")
        try:
            return Pipeline(_OfThread.connect(autocommit=True, **self._parameters))
        except errors.ConnectionTimeout:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise


class _OfThread(psycopg.Connection[Any]):
    """A connection that one thread keeps. It closes as soon as the thread ends."""

    def __del__(self, *_: Any) -> None:
        self.close()


class _Mine(threading.local):
    """The connection of one thread, and whether it closes at the end of each block."""

    pipeline: Pipeline | None = None
    brief = False
