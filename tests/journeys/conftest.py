"""Fixtures of the journeys: what the application asks of SQLite."""

import sqlite3
import threading
from contextlib import suppress

import pytest

STEPS_AT_ONCE = 10


class Work:
    """What the test's own thread, in which its requests run, asks of the connections that it has opened."""

    def __init__(self):
        self._connections = []
        self._thread = threading.get_ident()

    def watch(self, connection):
        if threading.get_ident() == self._thread:
            self._connections.append(connection)
        return connection

    def statements_of(self, call):
        """The result of `call`, and the statements that it ran."""
        seen = []
        self._tell(lambda connection: connection.set_trace_callback(seen.append))
        result = call()
        self._tell(lambda connection: connection.set_trace_callback(None))
        return result, seen

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
    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: work.watch(connect(*arguments, **options)))
    return work
