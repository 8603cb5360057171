"""Passwords with one line for the whole machine.

The textbook version (`infrastructure/passwords.py`) has as many slots in each worker as the machine has cores. Four
workers on two cores then run eight bcrypts at once: each takes four times as long, every other request competes with
eight busy threads, and 4 × 64 logins wait where 64 can be served within the ten seconds. Its semaphore also lets a new
call pass one that waits. Here `slots` run at once on the machine, `max_waiting` more wait, and calls are served in the
order in which they came, through whichever worker.

The line is a file in which each waiting or running thread locks one byte; the number of the byte is the time of its
arrival. A thread may run while fewer than `slots` locks are held on lower bytes. The kernel frees the locks of a killed
worker. Of the waiting threads of one process only the first looks for a slot, every 10 ms for each place that is still
ahead of it; so a slot stays empty for up to 10 ms between two runs.

A waiting thread does nothing else, so the gunicorn worker runs the routes that hash passwords on threads of their own.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from backend.infrastructure.passwords import MAX_WAITING, PATIENCE_SECONDS, Passwords
from backend.production.byte_locks import ByteLocks, OwnLocks

NAP_SECONDS = 0.01  # between two looks for a slot, for each place that is still ahead
DOOR, FIRST_PLACE = 0, 1  # bytes: locked while a thread joins the line; the lowest of the line


class SharedPasswords(Passwords):
    """Safe for threads and processes. All that share `locks` have one line; each must be given the same bounds."""

    def __init__(
        self, rounds: int, slots: int, locks: ByteLocks, max_waiting: int = MAX_WAITING,
        patience: float = PATIENCE_SECONDS,
    ) -> None:  # fmt: skip
        super().__init__(rounds, slots, max_waiting, patience)
        self._slots = slots
        self._places = slots + max_waiting
        self._locks = locks
        self._last_served = threading.Event()  # of the last thread of this process that joined the line
        self._last_served.set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        own, end = self._own_locks(), time.monotonic() + self._patience
        served = threading.Event()
        place, served_before = self._join(own, served)
        try:
            try:
                served_before.wait(self._patience)
                self._wait_for_slot(own, place, end)
            finally:
                served.set()
            yield
        finally:
            own.unlock(place)

    def _own_locks(self) -> OwnLocks:
        try:
            return self._locks.own()
        except OSError as error:  # too many open files
            raise self._unavailable() from error

    def _join(self, own: OwnLocks, served: threading.Event) -> tuple[int, threading.Event]:
        """Lock a place behind all others; also the event of the thread before it in this process.

        The door gives places, locks and events the same order.
        """
        own.lock(DOOR)
        try:
            place = time.monotonic_ns()
            if own.count_others(FIRST_PLACE, place) >= self._places:
                raise self._unavailable()
            own.lock(place)
            before, self._last_served = self._last_served, served
            return place, before
        finally:
            own.unlock(DOOR)

    def _wait_for_slot(self, own: OwnLocks, place: int, end: float) -> None:
        while (ahead := own.count_others(FIRST_PLACE, place)) >= self._slots:
            left = end - time.monotonic()
            if left <= 0:
                raise self._unavailable()
            time.sleep(min(left, NAP_SECONDS * (ahead - self._slots + 1)))


@cache
def shared_password_locks() -> ByteLocks:
    """The locks of this process and its children: gunicorn's master makes them, so they outlive workers and reloads."""
    return ByteLocks()
