"""Housekeeping over hosts: of all workers, the one whose connection holds an advisory lock does the work.

The lock on a file, as on SQLite, would admit one worker of each host: they would delete the same rows, and wait for
each other's locks. The server frees the advisory lock when the connection ends. So it is asked for again before
each round: after a restart of the server the worker has another connection, and another worker may have the lock.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext

from backend.operations.housekeeping import Housekeeping

TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('housekeeping', 0))"  # true also for its holder


class HostsHousekeeping(Housekeeping):
    """As on SQLite, except for the election and for what only SQLite needs."""

    @contextmanager
    def elected(self) -> Iterator[Callable[[], bool]]:
        with closing(self._database) if self.is_mine() else nullcontext():  # closing frees the lock
            yield self.is_mine

    def engine_batches(self) -> Iterator[tuple[str, int]]:
        """Nothing: caches keep no log here, and autovacuum does the rest."""
        yield from ()

    def is_mine(self) -> bool:
        """Take the lock for this thread's connection unless another one has it. Raises Unavailable."""
        with self._database.read() as tx:
            return bool(tx.rows(TRY_LOCK)[0][0])
