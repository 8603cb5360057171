"""The gate before the write lock, as one process sees it: who may wait there, and for how long.

SQLite's own busy handler sleeps and asks again, unfairly. So before BEGIN IMMEDIATE every writer takes a lock that is a
queue (`file_lock.py`), and keeps it until COMMIT has returned. One budget, `busy_timeout`, covers the wait for gate and
lock together. Only `patient` threads may wait for all of it, the others for a tenth, and not at all once somebody has
waited in vain, so that reads are served while an outsider sits on the lock. As every writer (and with it every
checkpoint) of ours takes the gate, no checkpoint overlaps another connection's commit, which is what SQLite's WAL-reset
bug needs (3.7.0 to 3.51.2: a lost or corrupt page). The exception is the turn during which the gate's file is deleted:
another process may pass then, and SQLite's own lock alone keeps the two writers apart.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import Unavailable
from backend.infrastructure.file_lock import FileLock

log = logging.getLogger(__name__)


class WriteGate:
    """Thread-safe."""

    def __init__(self, path: Path, busy_timeout: float, patient: int) -> None:
        self.lock = write_lock(path)
        self.busy_timeout = busy_timeout
        self._patience = threading.BoundedSemaphore(patient)
        self._stuck = False  # somebody has waited in vain, and nobody has had the lock since

    @contextmanager
    def entered(self, at_most: float = math.inf, patient: bool = False) -> Iterator[float]:
        """Through the gate, which stays ours after the block too, unless that raises.

        The block is to get SQLite's own lock; it is given the seconds that are left for that, and until it ends the
        thread has its place among the patient, if there was one. `at_most` seconds shorten the budget. With `patient`
        the thread may wait for the whole budget and takes no such place: for one that no other request needs. Raises
        Unavailable.
        """
        budget = min(self.busy_timeout, at_most)
        end = time.monotonic() + budget
        counted = not patient and self._patience.acquire(blocking=False)
        try:
            self._pass(budget if patient or counted else 0.0 if self._stuck else min(budget, self.busy_timeout / 10))
            try:
                yield max(0.0, end - time.monotonic())
            except BaseException:
                self.lock.release()
                raise
            self._stuck = False
        finally:
            if counted:
                self._patience.release()

    def _pass(self, seconds: float) -> None:
        try:
            passed = self.lock.acquire(seconds)
        except OSError as error:  # the gate's folder is gone, full or read-only; no more descriptors, locks or threads
            log.warning("the write gate cannot be used: %s", error)
            raise Unavailable("The database cannot do this just now.") from error
        if not passed:
            self._stuck = True
            raise Unavailable("Too many are waiting to write.")


def write_lock(path: Path) -> FileLock:
    """The lock that everything which writes to the database at `path` takes."""
    return FileLock(path.with_name(f"{path.name}-gate"))
