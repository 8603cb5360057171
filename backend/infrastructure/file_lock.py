"""A lock that all processes of one machine share, and that is a queue: first come, first served, with a time-out.

`flock` alone is such a queue: the kernel wakes whoever has waited longest, and frees the lock when its holder is
killed. But it knows no time-out, and a signal does not end it either, for Python begins the wait anew. To ask again
and again (LOCK_NB, a nap) has a time-out, but it is no queue. So the threads of a process wait in line, by the clock,
and while there is a line one more thread, the porter, waits for the kernel in their place, without one. What it gets
it hands to whoever is first by then. Between processes the queue is the kernel's, where each process has one place.

Inside a process the exclusion is a `threading.Lock`. `flock` locks a file, not a name: when the file is deleted, the
next thread makes a new one and locks that at once, although the holder of the old one is still at work. Two processes
can therefore hold the lock together until the holder of the deleted file releases it; what they protect must bear that.

When a system call fails, those in line get the error and the next call to `acquire` begins anew.

Measured with 2 processes of 4 threads, 2 ms held, so that 16 ms is the least: longest wait, and locks a second.
    this                 19 ms  455        `flock` in every thread                        48 ms  472
    LOCK_NB, 1 ms naps  3.2 s   482        `threading.Lock` before a process's `flock`   1.4 s   475
Beside a thread that computes all the time, where each hand-over waits for the interpreter: this 0.18 s and 70 a
second, `flock` in every thread 2.7 s and 130.
"""

import errno
import os
import threading
from collections import deque
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from weakref import WeakMethod

from backend.infrastructure.descriptor import Descriptor


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
        self._line: deque[_Turn] = deque()
        self._porter_waits = False
        self._inside = threading.Lock()  # shut while a thread of this process holds the lock
        self._held: Descriptor | None = None

    def acquire(self, timeout_seconds: float) -> bool:
        """Whether the lock was got before the time was over.

        Raises OSError if the file cannot be opened or locked, or the thread that is to wait cannot be started.
        """
        turn = _Turn(self._path)
        with self._mutex:
            if not self._porter_waits and self._take(turn.descriptor):
                return True
            if timeout_seconds <= 0:  # who does not wait must not be handed anything
                return False
            if not self._porter_waits:
                self._start_porter(turn.descriptor)
            self._line.append(turn)
        if not turn.came.acquire(timeout=timeout_seconds) and self._left(turn):
            return False
        if turn.error is not None:
            raise OSError(errno.ENOLCK, "the thread that waits for the lock has failed") from turn.error
        return True

    def pass_on(self) -> bool:
        """Give the lock as it is, not let go of, to whoever of this process has waited longest. False if nobody has."""
        with self._mutex:
            if not self._line:
                return False
            self._line.popleft().came.release()
            return True

    def release(self) -> None:
        if self._held is None:
            raise RuntimeError("released, but not held")
        held, self._held = self._held, None
        self._inside.release()
        _unlock(held)

    def _take(self, descriptor: Descriptor) -> bool:
        """Whether the lock was free."""
        if not self._inside.acquire(blocking=False):
            return False
        try:
            flock(descriptor.number, LOCK_EX | LOCK_NB)
        except BaseException as error:
            self._inside.release()
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._held = descriptor
        return True

    def _left(self, turn: "_Turn") -> bool:
        """Leave the line. False if the turn came after all, just after the time was over."""
        with self._mutex:
            if turn not in self._line:
                return False
            self._line.remove(turn)
            return True

    def _start_porter(self, descriptor: Descriptor) -> None:
        try:
            threading.Thread(target=self._wait_for_kernel, args=[descriptor], daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        self._porter_waits = True

    def _wait_for_kernel(self, descriptor: Descriptor | None) -> None:
        """The porter's work, until nobody is in line or a call fails."""
        try:
            while descriptor:
                flock(descriptor.number, LOCK_EX)
                self._inside.acquire()  # waits only if the holder locked another file: one that was deleted
                descriptor = self._hand_over(descriptor)
        except BaseException as error:
            self._give_up(error)

    def _hand_over(self, locked: Descriptor) -> Descriptor | None:
        """Give the lock to whoever is first in line (it goes if nobody is). What to wait with for the next."""
        with self._mutex:
            if self._line:
                self._held = locked
                self._line.popleft().came.release()
            else:
                self._inside.release()
                _unlock(locked)
            self._porter_waits = bool(self._line)
            return self._line[0].descriptor if self._line else None

    def _give_up(self, error: BaseException) -> None:
        """End the wait of all in line; the next one who comes starts another porter."""
        with self._mutex:
            self._porter_waits = False
            while self._line:
                turn = self._line.popleft()
                turn.error = error
                turn.came.release()


def _unlock(descriptor: Descriptor) -> None:
    """Unlock explicitly: to close the descriptor is not enough while a forked child shares it."""
    try:
        flock(descriptor.number, LOCK_UN)
    except OSError:
        descriptor.close()


class _Turn:
    """One thread in line. It brings the descriptor, so it is the one that hears of too many open files."""

    def __init__(self, path: Path) -> None:
        # To read is enough for a lock, so it is for the owner's processes alone.
        self.descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.came = threading.Lock()  # shut until then; an Event would take five times as long
        self.came.acquire()
        self.error: BaseException | None = None  # why it cannot be had, once `came` is open
