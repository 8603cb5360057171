"""The number of open connections of each client address, over all workers of the machine.

A count in each worker would allow an address a hundred connections to each of them, and one shared number would keep
the connections of a killed worker for ever. Here the workers share a table in memory, mapped before the fork: a line
for each of 65,536 hashes of an address, with one byte for each worker. A worker writes only its own bytes, so there is
no lock; an address's count is the sum of its line. When a worker dies, the master clears its bytes.

Promised: an address never holds more than its limit, and a killed worker's connections no longer count. Not
promised: that the last place is given when two workers are asked for it at the same moment, since both may refuse; that
each address has its own count, since two with the same hash share one. The hash is keyed, so a client cannot choose
whose count it shares.
"""

import hashlib
import mmap
import os

LINES = 1 << 16
WORKERS = 128  # alive at once: 32, and those that end after one or two reloads


class AddressCounts:
    """Counts by address and worker. Each worker writes at its own number only; the master clears a dead worker's."""

    def __init__(self) -> None:
        self._table = mmap.mmap(-1, LINES * WORKERS)
        self._key = os.urandom(16)
        self._free_numbers = set(range(WORKERS))  # in the master

    def begin_worker(self) -> int:
        """In the master: the least free number for a new worker."""
        number = min(self._free_numbers)
        self._free_numbers.remove(number)
        return number

    def end_worker(self, worker: int) -> None:
        """In the master: forget all connections of a dead worker."""
        self._table[worker::WORKERS] = bytes(LINES)
        self._free_numbers.add(worker)

    def enter(self, worker: int, address: str, limit: int) -> bool:
        """Count one more connection of the address. False, and not counted, beyond `limit` (≤ 200)."""
        line = self._line(address)
        # Add first, then look: two workers may both refuse the last place, but never both give it.
        self._table[line + worker] += 1
        if sum(self._table[line : line + WORKERS]) <= limit:
            return True
        self._table[line + worker] -= 1
        return False

    def leave(self, worker: int, address: str) -> None:
        """Count one connection less."""
        self._table[self._line(address) + worker] -= 1

    def _line(self, address: str) -> int:
        digest = hashlib.blake2b(address.encode(), digest_size=2, key=self._key).digest()
        return int.from_bytes(digest) * WORKERS
