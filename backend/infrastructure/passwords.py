"""Passwords: bcrypt over a pre-hash, few at once.

bcrypt reads 72 bytes and stops at a NUL, so it is given base64(HMAC-SHA-384(context, password)): 64 characters in which
every character of the password counts. The context is a fixed, public string (domain separation: hashes stolen from
elsewhere are of no use here), not a secret that could be lost.

A run takes a quarter of a second of one core. On the whole machine at most as many run at once as it has cores, each
under a lock that the kernel frees if its worker is killed. In each worker a short queue waits, and who comes after that
gets `Unavailable` at once, so that a storm of logins leaves the rest of the service its threads.
"""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import bcrypt

from backend.errors import Unavailable
from backend.infrastructure.byte_locks import ByteLocks, OwnLocks

CONTEXT = b"reference-backend password v1"
NAP_SECONDS = 0.01
T = TypeVar("T")


class Passwords:
    """Thread-safe. Passwords come NFC-normalised.

    `slots` runs at once by all who share `locks`; in this process `admitted` threads may run or wait for their turn.
    """

    def __init__(self, rounds: int, slots: int = 1, admitted: int = 4, locks: ByteLocks | None = None) -> None:
        self._rounds = rounds
        self._slots = slots
        self._locks = locks or ByteLocks()
        self._admitted = threading.BoundedSemaphore(admitted)
        self._decoy: bytes | None = None

    def hash(self, password: str) -> str:
        """A new bcrypt hash. Raises Unavailable when too many wait."""
        return self._in_turn(lambda: bcrypt.hashpw(_prehashed(password), bcrypt.gensalt(self._rounds))).decode()

    def matches(self, password: str, hashed: str | None) -> bool:
        """True if `hashed` is of `password`. None or no hash at all, of a user unknown or gone, takes as long."""
        known = hashed if hashed is not None and hashed.startswith("$2") else None
        stored = known.encode() if known is not None else self._decoy_hash()
        return self._in_turn(lambda: bcrypt.checkpw(_prehashed(password), stored)) and known is not None

    def outdated(self, hashed: str) -> bool:
        """True if the hash was made at another cost than today's."""
        return int(hashed.split("$")[2]) != self._rounds

    def _decoy_hash(self) -> bytes:
        if self._decoy is None:  # any well-formed hash of today's cost; its password is nobody's
            self._decoy = bcrypt.gensalt(self._rounds) + b"." * 31
        return self._decoy

    def _in_turn(self, run: Callable[[], T]) -> T:
        if not self._admitted.acquire(blocking=False):
            raise Unavailable("Too many passwords are being checked just now.")
        try:
            own = self._locks.own()
            slot = self._take_slot(own)
            try:
                return run()
            finally:
                own.unlock(slot)
        finally:
            self._admitted.release()

    def _take_slot(self, own: OwnLocks) -> int:
        """Ask again and again: a nap is short beside a run, and no lock can be waited for as one of several."""
        while True:
            for slot in range(self._slots):
                if own.try_lock(slot):
                    return slot
            time.sleep(NAP_SECONDS)


@cache
def shared_password_locks() -> ByteLocks:
    """Those of this process and its children: gunicorn's master makes them."""
    return ByteLocks()


def _prehashed(password: str) -> bytes:
    return base64.b64encode(hmac.digest(CONTEXT, password.encode(), hashlib.sha384))
