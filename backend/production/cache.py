"""A cache that is coherent over all workers.

The textbook cache (`backend/infrastructure/cache.py`) is invalidated only by its own process: after a write in one
worker, every other worker shows the old row for up to CACHE_TTL_SECONDS (60). So the core cannot cache sessions, and
reads session and user from the database at each request: 40 µs, where this cache takes 10.

Here the database records what has changed. Triggers on the cached tables append a tag for each changed row to the log
`cache_invalidations`, in the writer's transaction. This covers every writer: workers, the command line, a migration.

  lookup   `PRAGMA data_version` (3 µs) shows whether another connection has committed since. If so, the lookup reads
           the log from the last applied entry on and invalidates the tags in it. Only then does it look for the key.
  write    It invalidates nothing itself. It uses a connection that no reader uses, so `data_version` reports a
           worker's own commits as well (it does not change on the connection that committed).
  pruning  Housekeeping keeps the last 10,000 entries. If entries after the last applied one are missing, or the log
           ends before it (a backup was restored), the cache is cleared.

A hit takes 6 µs, a hit in the textbook cache 1. The PRAGMA alone costs as much as a point SELECT, so it pays to cache
finished objects and lists, not single rows of SQLite.

Promised: a read that begins after a write was answered never shows older data, whichever process wrote. Not promised:
that reads of two keys show the same moment.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

from backend.infrastructure.cache import LruCache
from backend.infrastructure.database import Tx
from backend.production.database import GroupCommitDatabase

T = TypeVar("T")

# The log's first and last entry and the new tags, in one statement, which needs no transaction around it.
# Two subqueries are two steps in the index; min and max in one query scan it.
NEWS = """SELECT coalesce((SELECT min(seq) FROM cache_invalidations), 1),
                 coalesce((SELECT max(seq) FROM cache_invalidations), 0),
                 (SELECT group_concat(DISTINCT key) FROM cache_invalidations WHERE seq > :applied)"""


class CoherentCache(LruCache):
    """An LruCache that reads from the database what to invalidate. Thread-safe."""

    def __init__(
        self, database: GroupCommitDatabase, size: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(database, size, ttl_seconds, clock)
        self._log = database
        self._applied = -1  # the last applied entry; -1 makes the first look find a gap
        self._seen = threading.local()  # `version`: each thread's connection has its own

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        version = self._log.version()
        if version != getattr(self._seen, "version", None):
            self._apply_news()
            self._seen.version = version  # read before the log: a commit in between shows at the next lookup
        return super().get_or_load(key, load, tags)

    def invalidate(self, *tags: str) -> None:
        """Do nothing: the next lookup finds this worker's own writes in the log."""

    def _apply_news(self) -> None:
        """Apply the log. Several threads may do so at once: each entry up to `_applied` is applied once or more."""
        applied = self._applied
        with self._log.read() as tx:
            ((first, end, tags),) = tx.rows(NEWS, applied=applied)
        if not first - 1 <= applied <= end:
            self.clear()
        elif tags:
            super().invalidate(*tags.split(","))
        self._applied = end
