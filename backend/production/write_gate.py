"""The write gate: a fair lock for all threads of all processes that write to one database.

In the textbook database, processes wait by SQLite's busy handler, which sleeps and tries again. With 2 processes of 4
threads that hold the lock for 2 ms each, one writer waits up to 3 s, and one gets a tenth of another's turns. With the
gate and group commit the longest wait is 30 to 50 ms, and all threads get about as many turns.

The queue between processes is `flock` on a file beside the database: the kernel wakes waiters in order of arrival, and
frees the lock of a killed process. But `flock` has no time-out. So the threads of a process wait in a line, each with
its own time-out. While there is a line, one more thread (the lock thread) waits in `flock` and passes the lock to the
head of the line. A holder can also pass the lock to the head of the line without unlocking it.

Promised: two threads of one process never hold the gate together, whatever happens to the file. A failed system call
fails the threads in line; the next thread tries again.

Not promised: that two processes exclude each other while the file is deleted. `flock` locks a file and not its name, so
one process may lock a new file while another still holds the deleted one. SQLite's own lock then keeps them apart.
"""

import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

from backend.infrastructure.migrations import gate_of


def sqlite_warnings() -> list[str]:
    """The warnings to log at the start about this version of SQLite."""
    if (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2):
        what = "has the WAL-reset bug: a program that writes without our gate may corrupt the database"
        return [f"SQLite {sqlite3.sqlite_version} {what}"]
    return []


class WriteGate:
    """Thread-safe. Not re-entrant. Only the holder may pass it on or release it."""

    def __init__(self, database: Path) -> None:
        self._path = gate_of(database)
        self._mutex = threading.Lock()  # guards the line and the lock thread
        self._line: deque[_Turn] = deque()
        self._lock_thread_runs = False
        self._inside = threading.Lock()  # held with the gate: threads exclude each other even without the file
        self._descriptor = -1  # of the file that is locked

    def acquire(self, seconds: float) -> bool:
        """Whether the gate was acquired within `seconds`. Raises OSError; RuntimeError if no thread can start."""
        with self._mutex:
            if not self._lock_thread_runs and self._acquired_at_once():
                return True
            if seconds <= 0:
                return False
            if not self._lock_thread_runs:
                threading.Thread(target=self._wait_for_kernel, daemon=True).start()
                self._lock_thread_runs = True
            turn = _Turn()
            self._line.append(turn)
        try:
            if not turn.came.acquire(timeout=seconds) and self._has_left(turn):
                return False
        except BaseException:  # KeyboardInterrupt, in the main thread: a turn left in line would keep the gate for ever
            if not (self._has_left(turn) or turn.error or self.pass_on()):
                self.release()
            raise
        if turn.error is not None:
            raise OSError("the write gate cannot be locked") from turn.error
        return True

    def pass_on(self) -> bool:
        """Pass the held gate to the thread of this process that has waited longest. False if no thread waits."""
        with self._mutex:
            if self._line:
                self._line.popleft().came.release()
                return True
            return False

    def release(self) -> None:
        """Release the gate. Unlock the file explicitly: a forked child may share the descriptor and keep it open."""
        descriptor = self._descriptor
        with suppress(OSError):
            flock(descriptor, LOCK_UN)
        self._inside.release()
        os.close(descriptor)

    def _has_left(self, turn: "_Turn") -> bool:
        """Leave the line. False if the turn came meanwhile."""
        with self._mutex:
            if turn in self._line:
                self._line.remove(turn)
                return True
            return False

    def _acquired_at_once(self) -> bool:
        if not self._inside.acquire(blocking=False):
            return False
        try:
            self._descriptor = self._locked(LOCK_EX | LOCK_NB)
        except BaseException as error:
            self._inside.release()
            if isinstance(error, BlockingIOError):
                return False
            raise
        return True

    def _wait_for_kernel(self) -> None:
        """The lock thread. It also waits while its process holds the gate, to keep a place in the kernel's queue."""
        try:
            while True:
                descriptor = self._locked(LOCK_EX)
                self._inside.acquire()  # blocks only if the file that the holder has locked was deleted
                self._descriptor = descriptor
                if not self.pass_on():
                    self.release()
                with self._mutex:
                    self._lock_thread_runs = bool(self._line)
                    if not self._lock_thread_runs:
                        return
        except BaseException as error:  # also on MemoryError: otherwise this process could never write again
            with self._mutex:
                self._lock_thread_runs = False
                while self._line:
                    turn = self._line.popleft()
                    turn.error = error
                    turn.came.release()

    def _locked(self, operation: int) -> int:
        """Open and lock the file that now has the name; the descriptor. Raises OSError, BlockingIOError."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class _Turn:
    """One thread in the line."""

    def __init__(self) -> None:
        # Held until the thread has the gate or an error. An Event takes five times as long.
        self.came = threading.Lock()
        self.came.acquire()
        self.error: BaseException | None = None
