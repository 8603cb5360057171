"""A lock that all processes of one machine share, and that is a queue: first come, first served, with a time-out.

`flock` alone is such a queue: the kernel wakes whoever has waited longest, and frees the lock when its holder is
killed. But it knows no time-out, and a signal does not end it either, for Python begins the wait anew. To ask again
and again (LOCK_NB, a nap) has a time-out, but it is no queue. So the threads of a process wait in line, by the clock,
and while there is a line one more thread, the porter, waits for the kernel in their place, without one. What it gets
it hands to whoever is first by then. Between processes the queue is the kernel's, where each process has one place.

Measured: 2 processes of 4 threads, 2 ms held, so that 16 ms is the least; longest wait, and locks a second.
    this                 18 ms  462        `flock` in every thread                        38 ms  472
    LOCK_NB, 1 ms naps  3.2 s   482        `threading.Lock` before a process's `flock`  1412 ms  475
Beside a thread in each process that computes all the time: this 118 ms, `flock` in every thread 2.7 s.
"""

import os
import threading
from collections import deque
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from weakref import WeakMethod


class FileLock:
    """One lock for all that name the same `path`. Thread-safe, not re-entrant; only the holder may release it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()
        begin = WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (again := begin()) and again())

    def _begin(self) -> None:
        """Nobody waits: true at the start, and after a fork, where those who waited are the parent's threads."""
        self._mutex = threading.Lock()  # guards the line and the porter
        self._line: deque[threading.Lock] = deque()  # a shut lock for each thread that waits, opened at its turn
        self._porter_waits = False
        self._held = -1  # the holder's descriptor

    def acquire(self, timeout_seconds: float) -> bool:
        """Whether the lock was got before the time was over. Raises OSError if the file cannot be opened."""
        with self._mutex:
            if not self._porter_waits:
                with suppress(BlockingIOError):
                    self._held = self._locked(LOCK_EX | LOCK_NB)
                    return True
                threading.Thread(target=self._wait_for_kernel, name="file-lock-porter", daemon=True).start()
                self._porter_waits = True
            turn = threading.Lock()
            turn.acquire()
            self._line.append(turn)
        try:
            came = turn.acquire(timeout=max(0.0, timeout_seconds))
        except BaseException:  # Ctrl-C: a turn must not come to somebody who has gone
            if self._came_at_last(turn):
                self.release()
            raise
        return came or self._came_at_last(turn)

    def release(self) -> None:
        descriptor, self._held = self._held, -1
        flock(descriptor, LOCK_UN)  # closing it would not do if somebody has forked meanwhile
        os.close(descriptor)

    def _came_at_last(self, turn: threading.Lock) -> bool:
        """Leave the line, unless the turn came just after the time was over."""
        with self._mutex:
            if turn not in self._line:
                return True
            self._line.remove(turn)
            return False

    def _wait_for_kernel(self) -> None:
        """The porter's work: a lock for each who waits, until nobody does."""
        wanted = True
        while wanted:
            try:
                descriptor = self._locked(LOCK_EX)
            except OSError:  # too many open files, say: whoever comes next will see it, and start another porter
                self._porter_waits = False
                return
            wanted = self._hand_over(descriptor)

    def _hand_over(self, descriptor: int) -> bool:
        """Give the lock to whoever is first in line, if anybody still is. Whether more are waiting."""
        with self._mutex:
            if self._line:
                self._held = descriptor
                self._line.popleft().release()
            else:
                os.close(descriptor)
            self._porter_waits = bool(self._line)
            return self._porter_waits

    def _locked(self, operation: int) -> int:
        """A new descriptor for one holder alone, locked. To read is enough, so root may have made the file."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            flock(descriptor, operation)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
