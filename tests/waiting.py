"""Waiting for a condition instead of sleeping, and a held write lock."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return as soon as `condition()` holds. Raises AssertionError if it does not within so many seconds.

    A test that passes never waits that long: the limit is what a busy machine may add.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def write_lock_held(database: Path) -> Iterator[None]:
    """Hold SQLite's write lock as another program does, bypassing the service's own queues."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as sqlite:
        sqlite.execute("BEGIN IMMEDIATE")
        yield
        sqlite.execute("ROLLBACK")
