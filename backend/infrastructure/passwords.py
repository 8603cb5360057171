"""Passwords: bcrypt over a pre-hash, with a bound on how many run at once.

bcrypt reads 72 bytes and stops at a NUL, so it is given base64(HMAC-SHA-384(context, password)): 64 characters in which
every character of the password counts. The context is a fixed, public string, not a secret that could be lost. Because
of it, a SHA-384 hash leaked by another service is of no use for guessing here (domain separation).

Every failed check costs the same time, so the time does not tell whether a user exists: an unknown user's password is
compared with a decoy hash, and a hash of a lower cost than today's is topped up with further runs.

A run occupies one core for a quarter of a second, so at most `slots` run at once. At most `max_waiting` more calls
wait, each for `timeout` seconds at most, roughly in order of arrival. A call beyond that gets `Unavailable` at once,
one that gets no slot, after `timeout`. A waiting call occupies its thread, so a storm of logins can occupy all threads
of a server.

The slots are those of one process: N workers run N times as many at once. Production has one queue for the machine
(production/passwords.py).
"""

import base64
import hashlib
import hmac
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import bcrypt

from backend.errors import Unavailable

CONTEXT = b"reference-backend password v1"
MAX_WAITING = 64
TIMEOUT_SECONDS = 10.0


class FailureCount(Protocol):
    """Counts the wrong passwords of one user."""

    def hit(self) -> None:
        """Count one. Raises RateLimited if the quota is used up."""

    def refund(self) -> None:
        """Take the hit back."""


class Passwords:
    """Thread-safe. Passwords must be NFC-normalised. A call waits once, even if it makes two runs."""

    def __init__(
        self, rounds: int, slots: int = 1, max_waiting: int = MAX_WAITING, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self._rounds = rounds
        self._slots, self._places = slots, slots + max_waiting
        self._timeout = timeout
        self._lock = threading.Lock()  # guards _calls
        self._calls = 0  # that run or wait
        self._free_slots = threading.Semaphore(slots)

    def hash(self, password: str) -> str:
        """A new bcrypt hash. Raises Unavailable."""
        with self.turn():
            return self._hash(password)

    def matches(self, password: str, hashed: str | None, wrong: FailureCount | None = None) -> bool:
        """True if `hashed` is of `password`. Raises Unavailable, and RateLimited if `wrong` is full.

        `wrong` counts passwords that do not match. False takes as long as one run at today's cost, also for None or a
        text that is no hash (an unknown or deleted user), and for a hash of a lower cost. A hash of a higher cost takes
        its own time.
        """
        with self.turn():
            return self._counted(password, hashed, wrong)

    def replaced(self, password: str, hashed: str | None, new: str, wrong: FailureCount | None = None) -> str | None:
        """A hash of `new` if `password` matches `hashed`, else None. Raises what `matches` does."""
        with self.turn():
            return self._hash(new) if self._counted(password, hashed, wrong) else None

    def renewed(self, password: str, hashed: str | None, wrong: FailureCount | None = None) -> str | None:
        """If `password` matches: `hashed`, or a hash of today's cost if it is outdated. Else None.

        Raises what `matches` does.
        """
        with self.turn():
            if not self._counted(password, hashed, wrong) or hashed is None:
                return None
            return self._hash(password) if self.outdated(hashed) else hashed

    def queue(self) -> tuple[int, int]:
        """How many calls run just now, and how many wait. Raises Unavailable."""
        calls = self._count_calls()
        return min(calls, self._slots), max(0, calls - self._slots)

    def outdated(self, hashed: str) -> bool:
        """True if the hash was made at another cost than today's."""
        return _cost(hashed) != self._rounds

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a slot; the block runs on it. Raises Unavailable."""
        with self._lock:
            if self._calls >= self._places:
                raise self._unavailable()
            self._calls += 1
        try:
            if not self._free_slots.acquire(timeout=self._timeout):
                raise self._unavailable()
            try:
                yield
            finally:
                self._free_slots.release()
        finally:
            with self._lock:
                self._calls -= 1

    def _count_calls(self) -> int:
        return self._calls

    def _unavailable(self) -> Unavailable:
        """After `Retry-After`, every call that waits now has been served or refused."""
        return Unavailable("Too many passwords are being checked just now.", retry_after=math.ceil(self._timeout))

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(_prehashed(password), bcrypt.gensalt(self._rounds)).decode()

    def _counted(self, password: str, hashed: str | None, wrong: FailureCount | None) -> bool:
        if wrong:
            wrong.hit()  # within the turn: a waiting password does not count yet
        right = self._matches(password, hashed)
        if wrong and right:
            wrong.refund()
        return right

    def _matches(self, password: str, hashed: str | None) -> bool:
        known = hashed is not None and hashed.startswith("$2")
        stored = hashed.encode() if hashed is not None and known else self._decoy()
        prehashed = _prehashed(password)
        if bcrypt.checkpw(prehashed, stored):
            return known
        for rounds in range(_cost(stored.decode()), self._rounds):  # each run doubles the work done so far
            bcrypt.hashpw(prehashed, bcrypt.gensalt(rounds))
        return False

    def _decoy(self) -> bytes:
        """A well-formed hash of today's cost, of no known password."""
        return bcrypt.gensalt(self._rounds) + b"." * 31


def _cost(hashed: str) -> int:
    return int(hashed.split("$")[2])


def _prehashed(password: str) -> bytes:
    return base64.b64encode(hmac.digest(CONTEXT, password.encode(), hashlib.sha384))
