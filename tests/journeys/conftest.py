"""Fixtures of the journeys: what the application asks of the database."""

import sqlite3
import threading
from contextlib import suppress
from importlib.util import find_spec

import pytest

from backend.delivery import relay

STEPS_AT_ONCE = 10


@pytest.fixture(autouse=True)
def no_hurry(standing_clock, monkeypatch):
    """Between two requests the test's clock stands, and a relay that is stopped has ended, however slow the machine."""
    monkeypatch.setattr(relay, "STOP_SECONDS", 60)


class Work:
    """What the test's own thread, in which its requests run, asks of the connections that it has opened."""

    def __init__(self):
        self._connections, self._seen = [], []
        self._thread = threading.get_ident()

    def watch(self, connection):
        if threading.get_ident() == self._thread:
            self._connections.append(connection)
        return connection

    def runs(self, sql):
        if threading.get_ident() == self._thread:
            self._seen.append(sql)

    def statements_of(self, call):
        """The result of `call`, and the statements that it ran."""
        self._seen.clear()
        return call(), [*self._seen]

    def steps_of(self, call):
        """The result of `call`, and the approximate number of steps that SQLite's machine took."""
        seen = []
        self._tell(lambda connection: connection.set_progress_handler(lambda: seen.append(1), STEPS_AT_ONCE))
        result = call()
        self._tell(lambda connection: connection.set_progress_handler(None, 0))
        return result, len(seen) * STEPS_AT_ONCE

    def _tell(self, change):
        for connection in self._connections:
            with suppress(sqlite3.ProgrammingError):  # it has been closed
                change(connection)


@pytest.fixture
def work(monkeypatch):
    """The work of all connections that are opened from here on: ask for it before the application."""
    work, connect = Work(), sqlite3.connect
    watched = type("Watched", (sqlite3.Connection,), telling(sqlite3.Connection, work))
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: work.watch(connect(*given, **more, factory=watched)))
    if find_spec("backend.postgres") and find_spec("psycopg"):
        from backend.postgres.pipeline import Pipeline

        run = Pipeline.run

        def told(self, statements):
            for sql, _ in statements:
                work.runs(sql)
            return run(self, statements)

        monkeypatch.setattr(Pipeline, "run", told)
    return work


def telling(kind, work):
    """The methods of this class that run statements; `work` is told of each."""

    def method(name):
        run = getattr(kind, name)

        def told(self, sql, *more, **options):
            work.runs(sql)
            return run(self, sql, *more, **options)

        return told

    return {name: method(name) for name in ("execute", "executemany")}
