"""How many connections each client address holds, over all workers of the machine, and right also after a kill.

A table in memory that the workers share (mapped before they are forked): a line for each of 65,536 hashes of an
address, in it one byte for each worker. A worker writes its own bytes only, so no lock is needed; the sum of a line
is the address's count. The parent clears the bytes of a worker that has died. Two addresses with one hash share their
count; the hash is keyed, so nobody can choose to share another's.
"""

import hashlib
import mmap
import os

LINES = 1 << 16
WORKERS = 128  # living at the same time: 32, and those that a reload or two has not yet ended


class AddressCounts:
    """Counts by address and worker. A worker alone writes at its number; once it is dead, its parent clears that."""

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, LINES * WORKERS)
        self._key = os.urandom(16)
        self._numbers = set(range(WORKERS))  # that no worker has; the parent's

    def begin_worker(self) -> int:
        """In the parent: a number for a new worker."""
        return self._numbers.pop()

    def end_worker(self, worker: int) -> None:
        """In the parent: forget all connections of a worker that is no more."""
        self._table[worker::WORKERS] = bytes(LINES)
        self._numbers.add(worker)

    def enter(self, worker: int, address: str, most: int) -> bool:
        """Count one more connection of the address, unless that makes it more than `most` (≤ 200)."""
        line = self._line(address)
        # First add, then look: two workers at once may both refuse the last place, but never both give it.
        self._table[line + worker] += 1
        if sum(self._table[line : line + WORKERS]) <= most:
            return True
        self._table[line + worker] -= 1
        return False

    def leave(self, worker: int, address: str) -> None:
        self._table[self._line(address) + worker] -= 1

    def _line(self, address: str) -> int:
        digest = hashlib.blake2b(address.encode(), digest_size=2, key=self._key).digest()
        return int.from_bytes(digest) * WORKERS
