"""A cache in each process that never shows what is older than an answered write, in whichever process that was made.

Triggers on the cached tables append the key of every changed row to `cache_invalidations`, in the writer's transaction,
so whoever writes (a worker, the command line, a migration) takes part. `applied` is the last entry of that log which
this process has obeyed. Then:

  lookup  asks SQLite whether anybody has committed since (`PRAGMA data_version`: 3 µs, as much as a point SELECT, so
          finished objects are cached, not rows). If so it reads the log from `applied` on and forgets those keys.
  miss    reads in one snapshot the end of the log (`as_of`) and then the data. The value is stored only if `applied`
          has not passed `as_of` meanwhile: that is the lease. A late value is still returned: its read began earlier.
  write   has nothing to do: it goes through a connection that nobody reads with, so whoever looks next, the writer
          himself too, is told of it like of anybody's. (data_version is silent on a connection's own commits.)
  prune   a trigger keeps the log's last entries; who finds a gap between `applied` and what is left forgets
          everything, and so does who finds the log ending before `applied`: a backup was put in its place.

Promise: a read that begins after a write was answered never shows older data. A time-to-live is a safety net, and the
bound for absent rows, which are cached too. Not promised: that two reads of different keys show one moment.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from backend.infrastructure.database import Database
from backend.infrastructure.single_flight import SingleFlight
from backend.infrastructure.transaction import Tx

T = TypeVar("T")

ABSENT: Final = object()  # cached for "there is no such row": None would look like a miss
ABSENT_TTL_SECONDS = 5.0  # clients choose which absent ids they ask for
# The log's first and last entry, and the keys that are new: in one statement, for that needs no transaction around it.
# (Two subqueries are two steps in the index; min and max in one are a scan.)
NEWS = """SELECT coalesce((SELECT min(seq) FROM cache_invalidations), 1),
                 coalesce((SELECT max(seq) FROM cache_invalidations), 0),
                 (SELECT group_concat(DISTINCT key) FROM cache_invalidations WHERE seq > :applied)"""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    tags: tuple[str, ...]
    expires: float

    @property
    def objects(self) -> int:
        return max(1, len(self.value)) if isinstance(self.value, (list, tuple)) else 1


@dataclass(frozen=True, slots=True)
class _News:
    """What the log says after `applied`: the topics to forget (None: all, there was a gap), and its end."""

    tags: list[str] | None
    end: int


class CoherentCache:
    """LRU with a time-to-live, of `size` objects (a list counts as many as it has); thread-safe. 0 stores nothing."""

    def __init__(
        self, database: Database, size: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hits = self.misses = 0
        self._database = database
        self._size = size
        self._ttl = ttl_seconds
        self._clock = clock
        self._lock = threading.Lock()  # guards _entries, _objects, _by_topic, _applied, _cleared
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._objects = 0  # in all entries
        self._by_tag: dict[str, set[Hashable]] = {}
        self._applied = -1  # before the first entry: the first look finds a gap
        self._cleared = 0  # how many gaps were found; what began to load before one is not stored after it
        self._seen = threading.local()  # each thread's connection has a version of its own
        self._flights: SingleFlight[Any] = SingleFlight()

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        """What `load` reads, from the cache if it may be; any change of a row named in `tags` forgets it.

        Must be called outside transactions. One load a key at a time; raises what `load` raises, keeping nothing.
        """
        self._catch_up()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.expires > self._clock():
                self._entries.move_to_end(key)
                self.hits += 1
                return None if entry.value is ABSENT else entry.value
            self.misses += 1
        value = self._flights.run(key, lambda: self._load(key, load, tags))
        return None if value is ABSENT else value

    def _load(self, key: Hashable, load: Callable[[Tx], Any], tags: tuple[str, ...]) -> Any:
        cleared = self._cleared
        with self._database.snapshot() as tx:
            as_of = tx.rows("SELECT max(seq) FROM cache_invalidations")[0][0] or 0
            value = load(tx)
        kept = ABSENT if value is None else value
        ttl = min(self._ttl, ABSENT_TTL_SECONDS) if value is None else self._ttl
        with self._lock:
            if self._size and self._cleared == cleared and self._applied <= as_of:
                self._forget(key)
                self._entries[key] = entry = _Entry(kept, tags, self._clock() + ttl)
                self._objects += entry.objects
                for tag in tags:
                    self._by_tag.setdefault(tag, set()).add(key)
                while self._objects > self._size:
                    self._forget(next(iter(self._entries)))
        return kept

    def _catch_up(self) -> None:
        version = self._database.version()
        if version == getattr(self._seen, "version", None):
            return
        self._obey(self._news())
        self._seen.version = version  # read before the log: a commit between the two shows at the next look

    def _news(self) -> _News:
        applied = self._applied
        first, end, tags = self._database.only_row(NEWS, applied=applied)
        if not first - 1 <= applied <= end:  # pruned too far, or another database was put in its place
            return _News(None, end)
        return _News(tags.split(",") if tags else [], end)

    def _obey(self, news: _News) -> None:
        with self._lock:
            if news.tags is None:
                self._entries.clear()
                self._objects = 0
                self._by_tag.clear()
                self._cleared += 1
                self._applied = news.end  # even if it is less
            for tag in news.tags or ():
                for key in list(self._by_tag.get(tag, ())):
                    self._forget(key)
            self._applied = max(self._applied, news.end)
            if news.tags != []:  # a flight may have read before the change; forgetting a few too many is cheap
                self._flights.forget()

    def _forget(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._objects -= entry.objects
        for tag in entry.tags:
            keys = self._by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._by_tag[tag]
