"""Passwords with one line for the whole machine.

The textbook version (`infrastructure/passwords.py`) has as many slots in each worker as the machine has cores. With
four workers on two cores, eight run at once: each takes three times as long as with two at once, and another
busy process gets half as much done (measured). Up to 4 × 64 calls wait, of which the machine can serve 80 in ten
seconds. The semaphore also lets a new call overtake a waiting one.

Here `slots` calls run at once on the machine, `max_waiting` more wait, and all workers' calls are served in order of
arrival. A line of 64 costs 3 % of one core, and a slot is empty for some 10 ms between two runs.

The line is a file in which each waiting or running thread locks one byte; the number of the byte is the time of its
arrival. A thread may run while fewer than `slots` locks are held on lower bytes. The kernel frees the locks of a killed
worker. A waiting thread sleeps 10 ms for each run that has to end first, so it looks more often as its turn comes
nearer.

A waiting thread is blocked, so the gunicorn worker runs the routes that hash passwords in a pool of their own.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from backend.infrastructure.passwords import MAX_WAITING, TIMEOUT_SECONDS, Passwords
from backend.production.byte_locks import ByteLocks, OwnLocks

POLL_SECONDS = 0.01  # between two looks for a slot, for each run that has to end first
JOINING, FIRST_PLACE = 0, 1  # bytes: locked while a thread joins the line; the lowest of the line


class SharedPasswords(Passwords):
    """Safe for threads and processes. All instances with the same `locks` form one line; give each the same bounds."""

    def __init__(
        self, rounds: int, slots: int, locks: ByteLocks, max_waiting: int = MAX_WAITING,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:  # fmt: skip
        super().__init__(rounds, slots, max_waiting, timeout)
        self._locks = locks

    @contextmanager
    def turn(self) -> Iterator[None]:
        own, end = self._own_locks(), time.monotonic() + self._timeout
        place = self._join(own)
        try:
            self._wait_for_slot(own, place, end)
            yield
        finally:
            own.unlock(place)

    def _count_calls(self) -> int:
        """Those of the whole machine."""
        return self._own_locks().count_others(FIRST_PLACE, time.monotonic_ns())

    def _own_locks(self) -> OwnLocks:
        try:
            return self._locks.own()
        except OSError as error:  # too many open files
            raise self._unavailable() from error

    def _join(self, own: OwnLocks) -> int:
        """Lock a place behind all others. JOINING keeps the locks in the order of their numbers."""
        own.lock(JOINING)
        try:
            place = time.monotonic_ns()
            if own.count_others(FIRST_PLACE, place) >= self._places:
                raise self._unavailable()
            own.lock(place)
            return place
        finally:
            own.unlock(JOINING)

    def _wait_for_slot(self, own: OwnLocks, place: int, end: float) -> None:
        while (ahead := own.count_others(FIRST_PLACE, place)) >= self._slots:
            left = end - time.monotonic()
            if left <= 0:
                raise self._unavailable()
            time.sleep(min(left, POLL_SECONDS * (ahead - self._slots + 1)))


@cache
def shared_password_locks() -> ByteLocks:
    """The locks of this process and its children: gunicorn's master makes them, so they outlive workers and reloads."""
    return ByteLocks()
