"""What this thread asks of SQLite, whichever code opens the connection."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock


@dataclass
class Work:
    """Both counts go on until the lesson sets them back."""

    selects: int = 0  # statements
    steps: int = 0  # of SQLite's virtual machine: what a statement costs, whatever the load of the machine

    def trace(self, sql: str) -> None:
        self.selects += sql.lstrip().startswith("SELECT")

    def step(self) -> None:
        self.steps += 1


@contextmanager
def watched() -> Iterator[Work]:
    """Count the work of the connections that this thread opens during the block."""
    work, connect, thread = Work(), sqlite3.connect, threading.get_ident()

    def opened(*arguments, **options):
        connection = connect(*arguments, **options)
        if threading.get_ident() == thread:
            connection.set_trace_callback(work.trace)
            connection.set_progress_handler(work.step, 1)
        return connection

    with mock.patch.object(sqlite3, "connect", opened):
        yield work
