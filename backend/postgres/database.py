"""The database on PostgreSQL: the verbs of `infrastructure/database.py` over psycopg.

`read()` is autocommit: one statement costs one round trip. A snapshot is REPEATABLE READ, READ ONLY. A transaction is
READ COMMITTED, and there are many at a time: where a rule depends on what was read, the repository reads with
`tx.for_update`, or the service takes `tx.lock(name)` first. Locks that cross raise Contention: the request is run again
(`web/middleware.py:dispatch`). Keys that two requests may insert at once belong to a row that both lock first.

Each thread has one connection, opened on first use and closed when the thread ends (a pool's checkout costs more than a
read). A connection that the server has closed meanwhile, or that was idle for IDLE_SECONDS and is lost, is replaced
before its next use, so it costs no request.

A network loses packets without a word, and a server may hang. So each wait is bounded:

    a block           `busy_timeout` + WORK_SECONDS, of which each wait for a lock may take `busy_timeout`
    a dead link       LINK: the kernel gives a connection up if the server's answers to its packets stay away for 3 s
    a new connection  half of `busy_timeout` for each address of the server. If that passes, all threads get Unavailable
                      at once for RETRY_SECONDS. Otherwise each request in the queue would wait as long.
    a silent client   SERVER: the server ends an open transaction, and so its locks, after `busy_timeout` without a
                      statement, and a connection of a host that is gone within 11 s

Not promised: that a write whose COMMIT got no answer was not made. Then Unavailable says so. The lookup of the server's
name is the system's, and is not bounded here.
"""

import logging
import math
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg import errors
from psycopg.adapt import Dumper

from backend.domain import Timestamp
from backend.errors import Contention, Unavailable
from backend.infrastructure.database import Database, Duplicate, Row, Tx

log = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.Connection[Any]
NAMED = re.compile(r"'[^']*'|(?<![:\w]):([a-z_][a-z0-9_]*)")  # a text, or a parameter that is not a cast
IN_IDS = re.compile(r"IN \(:ids\)")
RETRIED = (errors.SerializationFailure, errors.DeadlockDetected)
FAULTS = (
    psycopg.OperationalError, errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout,
)  # fmt: skip
UNKNOWN = "The database did not answer. Whether this was written is unknown: repeat it with the same Idempotency-Key."
PREPARED = 1000  # statements that a connection keeps prepared; psycopg's default is fewer than the service has
RETRY_SECONDS = 1.0
IDLE_SECONDS = 1.0  # after which a connection is tried before its next use
TRY_SECONDS = 1.0
WORK_SECONDS = 2.0
LINK = {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3, "tcp_user_timeout": 3000}
SERVER = {
    "tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": 11_000,
}  # fmt: skip


class BigInteger(Dumper):
    """Every integer is sent as a bigint: psycopg would choose a type by size, and the server would plan each anew."""

    oid = psycopg.adapters.types["int8"].oid

    def dump(self, obj: int) -> bytes:
        return str(obj).encode()


class BoundedConnection(psycopg.Connection[Any]):
    """Waits for no answer beyond `deadline` (monotonic seconds); then raises OperationalError, and must be closed."""

    deadline = 0.0

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        return super().wait(gen, timeout=self.deadline - time.monotonic())

    def answers(self) -> bool:
        """Whether the server answers within TRY_SECONDS."""
        self.deadline = time.monotonic() + TRY_SECONDS
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class PostgresTx(Tx):
    """An open transaction, or the single statements of `read()`. Used by one thread."""

    def __init__(self, connection: Connection, now: Timestamp, for_update: str = "") -> None:
        super().__init__(connection.cursor(), now)  # type: ignore[arg-type]  # the core's is a connection of sqlite3
        self.for_update = for_update

    def rows_for(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """The rows for many ids: `IN (:ids)` becomes `= ANY`, which has one plan for every number of ids."""
        return self.rows(IN_IDS.sub("= ANY(:ids)", sql), ids=list(ids)) if ids else []

    def lock(self, name: str) -> None:
        self.run("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))", name=name)

    def _run(self, execute: Callable[[str, Any], Any], sql: str, parameters: object) -> Any:
        if self.over:
            raise RuntimeError("this transaction is over")
        try:
            execute(translated(sql), parameters)
        except errors.UniqueViolation as error:
            raise Duplicate from error
        return self._connection


class PostgresDatabase(Database):
    """Thread-safe. `busy_timeout`, in seconds, bounds each wait for a lock, and nearly each block, as this file tells.

    `clock` returns Unix time in seconds.
    """

    def __init__(self, url: str, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        super().__init__(Path(), busy_timeout, clock)
        self._url, self._mine = url, _Mine()
        self._seconds, self._retry_at = busy_timeout + WORK_SECONDS, 0.0
        busy = math.ceil(busy_timeout * 1000)
        limits = {"lock_timeout": busy, "idle_in_transaction_session_timeout": busy}
        limits |= {"statement_timeout": math.ceil(self._seconds * 1000)} | SERVER
        self._options: dict[str, Any] = LINK | {
            "autocommit": True, "application_name": "reference-backend",
            "connect_timeout": max(2, int(busy_timeout / 2)),  # psycopg takes whole seconds, and two at least
            "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
        }  # fmt: skip

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with self.autocommit() as tx:
            yield tx

    @contextmanager
    def autocommit(self) -> Iterator[Tx]:
        """Run single statements, each of which commits by itself."""
        with self._block(), PostgresTx(self._block_connection(), self.now()) as tx:
            yield tx

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        with self._block(), self._begun_at("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as tx:
            yield tx

    def check_writable(self, at_most: float = math.inf) -> None:
        """Raises Unavailable if no transaction can write: the server is gone, or is a read-only replica."""
        with self.transaction() as tx:
            tx.run("SELECT set_config('lock_timeout', :most, true)", most=f"{min(at_most, self._busy_timeout)}s")
            # A write of no row: a host that is cut off meanwhile must not hold a lock that other hosts' probes need.
            tx.run(f"SELECT 1 FROM schema_migrations WHERE version = 0{tx.for_update}")

    def close(self) -> None:
        self._mine.slot.close()

    @contextmanager
    def _write(self, seconds: float) -> Iterator[Tx]:
        """`lock_timeout` bounds the waits, each by itself, so `seconds` is not used. Their time is part of the work."""
        began = time.monotonic()
        try:
            with self._begun_at("BEGIN", " FOR NO KEY UPDATE") as tx:
                yield tx
        finally:
            self._tell_listeners(began, began)

    @contextmanager
    def _begun_at(self, begin: str, for_update: str = "") -> Iterator[PostgresTx]:
        connection = self._block_connection()
        connection.execute(begin)
        try:
            with PostgresTx(connection, self.now(), for_update) as tx:
                yield tx
        except BaseException:
            self._roll_back(connection)
            raise
        self._commit(connection)

    def _commit(self, connection: Connection) -> None:
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            self._mine.slot.close()
            if isinstance(error, RETRIED):
                raise
            raise Unavailable(UNKNOWN) from error

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self._mine.slot.close()

    def _check_fault(self, error: Exception) -> None:
        """Raises Contention for a lost race, and Unavailable for a fault of the server."""
        if isinstance(error, RETRIED):
            raise Contention from error
        if isinstance(error, FAULTS):
            self._mine.slot.close()
            log.warning("database fault: %s", type(error).__name__)
            raise Unavailable("The database cannot do this just now.") from error

    def _block_connection(self) -> BoundedConnection:
        """This thread's connection, for the block that begins now."""
        connection = self._mine.slot.connection(self._connect)
        connection.deadline = time.monotonic() + self._seconds
        return connection

    def _connect(self) -> BoundedConnection:
        if time.monotonic() < self._retry_at:
            raise Unavailable("The database does not answer.")
        try:
            connection = BoundedConnection.connect(self._url, **self._options)
        except errors.ConnectionTimeout:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise
        connection.prepare_threshold, connection.prepared_max = 1, PREPARED
        connection.adapters.register_dumper(int, BigInteger)
        return connection


class _Mine(threading.local):
    """The connection of one thread."""

    def __init__(self) -> None:
        self.slot = _Slot()


class _Slot:
    """At most one connection. `__del__` closes it as soon as the thread ends."""

    def __init__(self) -> None:
        self._open: BoundedConnection | None = None
        self._incoming, self._used = select.poll(), 0.0

    def connection(self, connect: Callable[[], BoundedConnection]) -> BoundedConnection:
        """The connection, between blocks; a new one if there is none, or if it is closed or lost."""
        if self._open is None or self._is_lost(self._open):
            self.close()
            self._open, self._incoming = connect(), select.poll()
            self._incoming.register(self._open, select.POLLIN)
        self._used = time.monotonic()
        return self._open

    def _is_lost(self, connection: BoundedConnection) -> bool:
        if connection.closed or self._incoming.poll(0):  # between blocks the server only sends that it closes
            return True
        return time.monotonic() - self._used > IDLE_SECONDS and not connection.answers()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    __del__ = close


@cache
def translated(sql: str) -> str:
    """The statement with `%(name)s` for each `:name`. The service has a few hundred statements."""
    return NAMED.sub(lambda found: f"%({found[1]})s" if found[1] else found[0], sql.replace("%", "%%"))
