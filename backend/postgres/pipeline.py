"""Statements that travel together: one connection, on which many statements take one round trip.

With a cursor of psycopg each statement is a round trip, and costs this process 20 µs: an order takes 25 trips. Here
BEGIN and each statement whose result no code waits for (`tx.write`) travel with the next statement, or with the COMMIT:
7 trips. A statement costs 5 µs. This is libpq's pipeline mode (PostgreSQL's documentation, "Pipeline Mode"). psycopg
connects, converts parameters and rows, and knows the errors; its own pipeline sends each statement by itself, and costs
more than the trips that it saves on one machine.

Each statement is prepared when it is first used, once for each combination of its parameters' types.

Promised: the statements of a trip run in their order, and none after the first that fails. If a trip ends early, the
connection is closed, so no later trip takes its results.
"""

import itertools
import math
import re
import select
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeAlias

import psycopg
from psycopg import errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.types.numeric import Int8Dumper

from backend.infrastructure.database import Row

Statement: TypeAlias = tuple[str, Mapping[str, object]]  # SQL with `:name` parameters, and their values
# As it is sent: name, SQL, the oids of its parameters' types (0 lets the server infer one), values, their formats.
Dumped: TypeAlias = tuple[bytes, bytes, tuple[int, ...], Sequence[Any], Sequence[Format] | None]
NAMED = re.compile(r"'[^']*'|(?<![:\w]):([a-z_][a-z0-9_]*)")  # a text, or a parameter that is not a cast
NUMBERS = itertools.count()
LONGEST_WAIT = 3600.0  # seconds, if there is no deadline


class Pipeline:
    """A connection that nothing else uses. Used by one thread.

    No wait for an answer goes beyond `deadline` (monotonic seconds).
    """

    deadline = math.inf

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.adapters.register_dumper(int, Int8Dumper)  # types by size would make the server plan each one again
        self._connection, self._libpq = connection, connection.pgconn
        self._values = Transformer(connection)
        self._prepared: set[bytes] = set()  # names of statements
        self._answered = time.monotonic()
        self._readable, self._either = select.poll(), select.poll()
        self._readable.register(connection, select.POLLIN)
        self._either.register(connection, select.POLLIN | select.POLLOUT)

    @property
    def usable(self) -> bool:
        """Whether the connection is open. Between trips the server sends only that it closes."""
        return not self._connection.closed and not self._readable.poll(0)

    @property
    def idle_seconds(self) -> float:
        """How long ago the server has last answered."""
        return time.monotonic() - self._answered

    def answers(self, seconds: float) -> bool:
        """Whether the server answers in time; else the connection is closed."""
        self.deadline = time.monotonic() + seconds
        with suppress(psycopg.OperationalError):
            return bool(self.run([("SELECT 1", {})]))
        return False

    def roll_back(self) -> None:
        """Roll back an open transaction. If that fails, the connection is closed, which rolls back too."""
        if self._libpq.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                self.run([("ROLLBACK", {})])

    def close(self) -> None:
        self._connection.close()

    def run(self, statements: Iterable[Statement]) -> list[PGresult]:
        """Run all in one round trip. Raises psycopg.Error: that of the first statement that fails.

        Raises OperationalError if the connection is lost, or no answer comes in time; then it is unknown which of them
        have run.
        """
        dumped = [self._dumped(*statement) for statement in statements]  # may raise: not every text can be sent
        if not dumped:
            return []
        try:
            self._libpq.enter_pipeline_mode()
            sent = self._send(dumped)
            self._libpq.pipeline_sync()
            answers = list(zip(sent, self._received(), strict=True))
            self._libpq.exit_pipeline_mode()
            self._answered = time.monotonic()
        except BaseException:
            self.close()
            raise
        for prepared, result in answers:
            if result.status == ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result)
            if prepared:
                self._prepared.add(prepared)
        return [result for prepared, result in answers if not prepared]

    def rows(self, result: PGresult) -> list[Row]:
        self._values.set_pgresult(result)
        return self._values.load_rows(0, result.ntuples, tuple)

    def _dumped(self, sql: str, parameters: Mapping[str, object]) -> Dumped:
        text, names = numbered(sql)
        values = self._values.dump_sequence([parameters[name] for name in names], [PyFormat.AUTO] * len(names))
        types = tuple(self._values.types or ())
        return _name(sql, types), text, types, values, self._values.formats

    def _send(self, statements: Sequence[Dumped]) -> list[bytes]:
        """Hand all to libpq. Returns, for each result to come, the name of the statement that it prepares, or b""."""
        sent: list[bytes] = []
        for name, sql, types, values, formats in statements:
            if name not in self._prepared and name not in sent:
                self._libpq.send_prepare(name, sql, types)
                sent.append(name)
            self._libpq.send_query_prepared(name, values, formats)
            sent.append(b"")
        return sent

    def _received(self) -> list[PGresult]:
        """All results of the trip. Waits without the interpreter's lock, which libpq's own waiting would hold."""
        results: list[PGresult] = []
        while self._libpq.flush():  # not all is sent
            self._wait(self._either)
        while True:
            while self._libpq.is_busy():
                self._wait(self._readable)
            result = self._libpq.get_result()
            if result is None and self._libpq.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection is lost")
            if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                return results
            if result is not None:  # None ends the results of one statement
                results.append(result)

    def _wait(self, readiness: select.poll) -> None:
        """Wait until the deadline. What arrived while this process was stopped counts as in time."""
        left = max(0.0, min(self.deadline - time.monotonic(), LONGEST_WAIT))
        if not readiness.poll(left * 1000):
            raise psycopg.OperationalError("no answer in time")
        self._libpq.consume_input()


@cache
def numbered(sql: str) -> tuple[bytes, list[str]]:
    """The statement with `$1`, `$2`… for its parameters, and their names. The cache holds a few hundred."""
    names = list(dict.fromkeys(found for found in NAMED.findall(sql) if found))
    return NAMED.sub(lambda found: f"${names.index(found[1]) + 1}" if found[1] else found[0], sql).encode(), names


@cache
def _name(sql: str, types: tuple[int, ...]) -> bytes:
    """A name for the statement with parameters of these types, the same on every connection."""
    return b"s%d" % next(NUMBERS)
