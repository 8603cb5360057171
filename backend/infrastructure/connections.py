"""Connections to SQLite: one for each thread to read with, opened on first use, closed with its thread.

None outlives a fork. Never open or close a raw descriptor of the database, its `-wal` or its `-shm` in a process that
serves: POSIX drops all locks that a process has on a file when it closes any descriptor of it. (`os.stat` is fine.)
"""

import math
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote
from weakref import proxy

from backend.errors import Unavailable

PRAGMAS = (
    "synchronous = FULL",  # an answered write is on disk, power loss included
    "foreign_keys = ON",
    "trusted_schema = OFF",
    # Pages, four times the default: under load an eighth more transfers, for pages written often are copied less often.
    # It costs 16 MB of `-wal`, and the time to read that once after a crash.
    "wal_autocheckpoint = 4000",
    # Bytes, four such checkpoints. The `-wal` grows beyond it while a long snapshot keeps SQLite from restarting it.
    # The first commit after the restart truncates it. In daily work it stays smaller, so its blocks on disk are reused.
    "journal_size_limit = 67108864",
)
STATEMENTS = 512  # prepared and kept: all of ours
File: TypeAlias = tuple[int, int] | None  # device and number, None if there is none
INHERITED: list[sqlite3.Connection] = []  # what a fork brought along
STEPS = 10_000  # of SQLite's virtual machine, some 0.2 ms, between two looks at the deadline


class Connection:
    """`sqlite` is what SQL goes to; `deadline` (monotonic) interrupts whatever runs past it. One thread at a time."""

    def __init__(self, path: Path, query_only: bool) -> None:
        self.deadline = math.inf
        self._lock_tenths = -1
        self.process = os.getpid()
        # mode=rw: a vanished file is an error, not a new and empty database.
        self.sqlite = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, cached_statements=STATEMENTS,
            check_same_thread=False,
        )  # fmt: skip
        for pragma in PRAGMAS:
            self.sqlite.execute(f"PRAGMA {pragma}")
        # Once and for all: to switch it makes SQLite prepare every statement anew, 0.2 ms for each transaction.
        self.sqlite.execute(f"PRAGMA query_only = {int(query_only)}")
        this = proxy(self)  # a handler that held the connection would keep it open for ever
        self.sqlite.set_progress_handler(lambda: time.monotonic() > this.deadline, STEPS)

    def wait_for_lock(self, seconds: float) -> None:
        """How long BEGIN IMMEDIATE may wait, to the next tenth of a second: said again only when it differs."""
        tenths = math.ceil(seconds * 10)
        if tenths != self._lock_tenths:
            self.sqlite.execute(f"PRAGMA busy_timeout = {tenths * 100}")
            self._lock_tenths = tenths

    def close(self) -> None:
        """A parent's connection, after a fork, is kept aside instead: to be neither used nor closed here."""
        if self.process == os.getpid():
            self.sqlite.close()
        else:
            INHERITED.append(self.sqlite)

    def __del__(self) -> None:
        if hasattr(self, "sqlite"):
            self.close()


class Connections(threading.local):
    """Each thread sees its own, all of one `file`. `opened` counts them: figures of two must not be compared."""

    def __init__(self, path: Path, file: File) -> None:
        self._path, self._file = path, file
        self._connection: Connection | None = None
        self.opened = 0
        self._looked_at = -math.inf  # monotonic seconds

    def mine(self, unseen_seconds: float = 0.0) -> Connection:
        """This thread's connection; its file may go unlooked at for so long.

        Raises sqlite3.Error if it cannot be opened, Unavailable if the file is another.
        """
        now = time.monotonic()
        if now - self._looked_at >= unseen_seconds:
            self.check_file()
            self._looked_at = now
        connection = self._connection
        if connection is None or connection.process != os.getpid():
            self.drop()
            connection = self._connection = Connection(self._path, query_only=True)
            self.opened += 1
        return connection

    @property
    def in_transaction(self) -> bool:
        mine = self._connection
        return mine is not None and mine.process == os.getpid() and mine.sqlite.in_transaction

    def check_file(self) -> None:
        """Raises Unavailable if the file is not the one that was there at the start.

        A deleted file could be written to until the last descriptor is closed, and all of it would be lost. And if
        another was put in its place, its `-wal` is still that of the old one: only a restart can tell them apart.
        """
        if file_at(self._path) != self._file:
            raise Unavailable("The database file is not the one that was there at the start.")

    def drop(self) -> None:
        """Close this thread's connection; the next use opens another."""
        self._looked_at = -math.inf
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def file_at(path: Path) -> File:
    """Which file that is just now."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino
