"""Passwords: bcrypt over a pre-hash, few at once.

bcrypt reads 72 bytes and stops at a NUL, so it is given base64(HMAC-SHA-384(context, password)): 64 characters in which
every character of the password counts. The context is a fixed, public string (domain separation: hashes stolen from
elsewhere are of no use here), not a secret that could be lost.

A run takes a quarter of a second of one core. At most `slots` run at once, a short queue waits, and who comes after
that gets `Unavailable` at once, so that a storm of logins leaves the rest of the service its threads.
"""

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable
from typing import TypeVar

import bcrypt

from backend.errors import Unavailable

CONTEXT = b"reference-backend password v1"
T = TypeVar("T")


class Passwords:
    """Thread-safe. Passwords come NFC-normalised."""

    def __init__(self, rounds: int, slots: int = 1) -> None:
        self._rounds = rounds
        self._running = threading.BoundedSemaphore(slots)
        self._admitted = threading.BoundedSemaphore(slots * 3)  # running or waiting
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
            with self._running:
                return run()
        finally:
            self._admitted.release()


def _prehashed(password: str) -> bytes:
    return base64.b64encode(hmac.digest(CONTEXT, password.encode(), hashlib.sha384))
