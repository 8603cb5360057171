"""A database seen from outside: statements (which can fail on demand), descriptors, threads, the gate."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest


class Statements:
    """`ran` has the SQL of every statement of every watched connection, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._failures: dict[str, tuple[BaseException, bool]] = {}

    def busy_timeouts(self) -> list[int]:
        """The milliseconds for which statements were told to wait for SQLite's locks, in order."""
        return [int(sql.rpartition(" ")[2]) for sql in self.ran if sql.startswith("PRAGMA busy_timeout = ")]

    def fail(self, sql: str, error: BaseException, done: bool = False) -> None:
        """The next `sql` raises `error` instead of running or, with `done`, after it has run."""
        self._failures[sql] = error, done

    def run(self, execute: Callable[..., sqlite3.Cursor], sql: str, *parameters: Any) -> sqlite3.Cursor:
        self.ran.append(sql)
        error, done = self._failures.pop(sql, (None, True))
        if done:
            cursor = execute(sql, *parameters)
        if error is not None:
            raise error
        return cursor


def watch_statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Watch every connection that is opened until the test ends."""
    statements = Statements()

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return statements.run(super().execute, sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    return statements


def in_a_thread(work: Callable[[], object]) -> None:
    """Run `work` in a new thread, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def descriptors_of(path: Path) -> int:
    """How often this process has the file open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += link.readlink() == path
    return found


def files_of(process: int) -> set[str]:
    """The files behind its descriptors, as the kernel names them."""
    found = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we look
            found.add(str(link.readlink()))
    return found


def holds_gate(worker: int, database: Path) -> bool:
    """Whether the worker has the gate's file open: it does only while it holds the gate or waits for it."""
    return str(database.with_name(f"{database.name}-gate")) in files_of(worker)
