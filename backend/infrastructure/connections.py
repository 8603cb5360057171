"""One SQLite connection for each thread: opened on first use, closed with its thread, never carried over a fork.

Never open or close a raw descriptor of the database, its `-wal` or its `-shm` in a process that serves: POSIX drops all
locks that a process has on a file when it closes any descriptor of it. (`os.stat` is fine.)
"""

import math
import os
import sqlite3
import threading
import time
from pathlib import Path
from urllib.parse import quote

PRAGMAS = (
    "synchronous = FULL",  # an answered write is on disk, power loss included
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "query_only = ON",  # lifted for the length of a write transaction alone
)
STATEMENTS = 512  # prepared and kept: all of ours
STEPS = 10_000  # of SQLite's virtual machine, some 0.2 ms, between two looks at the deadline


class Connection:
    """A thread's connection. `sqlite` is what SQL goes to; `deadline` (monotonic) interrupts whatever runs past it."""

    def __init__(self, path: Path) -> None:
        self.deadline = math.inf
        # mode=rw: a vanished file is an error, not a new and empty database.
        self.sqlite = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, cached_statements=STATEMENTS,
            check_same_thread=False,
        )  # fmt: skip
        self.process = os.getpid()
        for pragma in PRAGMAS:
            self.sqlite.execute(f"PRAGMA {pragma}")
        self.sqlite.set_progress_handler(lambda: time.monotonic() > self.deadline, STEPS)

    def __del__(self) -> None:
        if hasattr(self, "process") and self.process == os.getpid():
            self.sqlite.close()


class Connections(threading.local):
    """Each thread sees its own. `opened` counts them, so that figures of two connections are not compared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Connection | None = None
        self._inherited: list[Connection] = []
        self.opened = 0

    def mine(self) -> Connection:
        """This thread's connection. Raises sqlite3.Error if it cannot be opened."""
        connection = self._connection
        if connection is None or connection.process != os.getpid():
            if connection is not None:  # the parent's: to be neither used nor closed here, so it is kept aside
                self._inherited.append(connection)
            connection = self._connection = Connection(self._path)
            self.opened += 1
        return connection

    def drop(self) -> None:
        """Close this thread's connection; the next use opens another."""
        self._connection = None
