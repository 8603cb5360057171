"""Passwords: bcrypt over a pre-hash, few at once.

bcrypt reads 72 bytes and stops at a NUL, so it is given base64(HMAC-SHA-384(context, password)): 64 characters in which
every character of the password counts. The context is a fixed, public string (domain separation: hashes stolen from
elsewhere are of no use here), not a secret that could be lost.

A run takes a quarter of a second of one core, so at most as many run at once on the machine as it has cores. The others
wait in one line for all processes, first come, first served: 64 at most, each for 10 seconds at most. The sixty-fifth
gets `Unavailable` at once, and so does a thread that has waited in vain.

The line is a file in which each thread locks one byte: the number of the byte is the time of its arrival. A thread may
run while fewer locks than cores are held on lower bytes. The kernel frees the locks of a killed worker.

A thread that waits in line does nothing else. Our gunicorn worker therefore runs the routes that hash passwords on
threads of their own, which may wait long for the database too. Under another server (plain gthread, Werkzeug's) a storm
of logins occupies the server's threads.
"""

import base64
import hashlib
import hmac
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import bcrypt

from backend.errors import Unavailable
from backend.infrastructure.byte_locks import ByteLocks, OwnLocks
from backend.infrastructure.rate_limiter import Count

CONTEXT = b"reference-backend password v1"
MAX_WAITING = 64
PATIENCE_SECONDS = 10.0
NAP_SECONDS = 0.01  # between two looks for a slot, for each place that is still to become free
DOOR, FIRST_PLACE = 0, 1  # bytes: locked while a thread joins the line; the lowest of the line


class Passwords:
    """Thread-safe. Passwords come NFC-normalised. A call waits for one turn at most, also if it makes two runs.

    All that share `locks` run `slots` at once and let `max_waiting` more wait, each for `patience` seconds.
    """

    def __init__(
        self, rounds: int, slots: int = 1, locks: ByteLocks | None = None, max_waiting: int = MAX_WAITING,
        patience: float = PATIENCE_SECONDS,
    ) -> None:  # fmt: skip
        self._rounds = rounds
        self._slots = slots
        self._locks = locks or ByteLocks()
        self._max_waiting = max_waiting
        self._patience = patience
        self._decoy: bytes | None = None
        self._last_served = threading.Event()  # of the last thread of this process that joined the line
        self._last_served.set()

    def hash(self, password: str) -> str:
        """A new bcrypt hash. Raises Unavailable."""
        with self._turn():
            return self._hash(password)

    def matches(self, password: str, hashed: str | None, wrong: Count | None = None) -> bool:
        """True if `hashed` is of `password`. Raises Unavailable, and RateLimited if `wrong` is full.

        `wrong` counts passwords that do not match. False takes as long as a run at today's cost, also for None and for
        no hash at all, of a user unknown or gone, and for a hash of before at a lower cost. (One at a higher cost takes
        its own time.)
        """
        with self._turn():
            return self._counted(password, hashed, wrong)

    def replaced(self, password: str, hashed: str | None, new: str, wrong: Count | None = None) -> str | None:
        """A hash of `new` if `password` matches `hashed`, else None. Raises what `matches` does."""
        with self._turn():
            return self._hash(new) if self._counted(password, hashed, wrong) else None

    def renewed(self, password: str, hashed: str | None, wrong: Count | None = None) -> str | None:
        """`hashed`, or one of today's cost if it is outdated, if `password` matches; else None.

        Raises what `matches` does.
        """
        with self._turn():
            if not self._counted(password, hashed, wrong) or hashed is None:
                return None
            return self._hash(password) if self.outdated(hashed) else hashed

    def outdated(self, hashed: str) -> bool:
        """True if the hash was made at another cost than today's."""
        return _cost(hashed) != self._rounds

    def _hash(self, password: str) -> str:
        return bcrypt.hashpw(_prehashed(password), bcrypt.gensalt(self._rounds)).decode()

    def _counted(self, password: str, hashed: str | None, wrong: Count | None) -> bool:
        if wrong:
            wrong.hit()  # only now that it is this password's turn: of those in line none counts yet
        right = self._matches(password, hashed)
        if wrong and right:
            wrong.refund()
        return right

    def _matches(self, password: str, hashed: str | None) -> bool:
        known = hashed if hashed is not None and hashed.startswith("$2") else None
        stored = known.encode() if known is not None else self._decoy_hash()
        prehashed = _prehashed(password)
        if bcrypt.checkpw(prehashed, stored):
            return known is not None
        for rounds in range(_cost(stored.decode()), self._rounds):  # each doubles the work done so far
            bcrypt.hashpw(prehashed, bcrypt.gensalt(rounds))
        return False

    def _decoy_hash(self) -> bytes:
        if self._decoy is None:  # any well-formed hash of today's cost; its password is nobody's
            self._decoy = bcrypt.gensalt(self._rounds) + b"." * 31
        return self._decoy

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait in line; the block runs on one of the slots."""
        own, end = self._own_locks(), time.monotonic() + self._patience
        served = threading.Event()
        place, served_before = self._join(own, served)
        try:
            try:
                served_before.wait(self._patience)  # of the threads of this process, one alone looks for a slot
                self._wait_for_slot(own, place, end)
            finally:
                served.set()
            yield
        finally:
            own.unlock(place)

    def _wait_for_slot(self, own: OwnLocks, place: int, end: float) -> None:
        while (ahead := own.count_others(FIRST_PLACE, place)) >= self._slots:
            left = end - time.monotonic()
            if left <= 0:
                raise self._unavailable()
            time.sleep(min(left, NAP_SECONDS * (ahead - self._slots + 1)))

    def _own_locks(self) -> OwnLocks:
        try:
            return self._locks.own()
        except OSError as error:  # too many open files
            raise self._unavailable() from error

    def _join(self, own: OwnLocks, served: threading.Event) -> tuple[int, threading.Event]:
        """Lock a place behind all others; also the event of the thread before it in this process.

        The door makes the order of the places that of the locks and of the events.
        """
        own.lock(DOOR)
        try:
            place = time.monotonic_ns()
            if own.count_others(FIRST_PLACE, place) >= self._slots + self._max_waiting:
                raise self._unavailable()
            own.lock(place)
            before, self._last_served = self._last_served, served
            return place, before
        finally:
            own.unlock(DOOR)

    def _unavailable(self) -> Unavailable:
        """After `Retry-After` all that wait now have been served or refused."""
        return Unavailable("Too many passwords are being checked just now.", retry_after=math.ceil(self._patience))


@cache
def shared_password_locks() -> ByteLocks:
    """Those of this process and its children: gunicorn's master makes them."""
    return ByteLocks()


def _cost(hashed: str) -> int:
    return int(hashed.split("$")[2])


def _prehashed(password: str) -> bytes:
    return base64.b64encode(hmac.digest(CONTEXT, password.encode(), hashlib.sha384))
