"""Cache-aside: services read through a cache in this process, and a write invalidates it after its commit.

A read names the rows that it depends on by tags. A write registers the tags of the rows that it changes:

    self._cache.get_or_load(("product", product_id), load, tags=(f"products:{product_id}",))
    tx.after_commit(lambda: self._cache.invalidate(f"products:{product_id}", "products"))

Four mistakes are common in such a cache:

- It is invalidated before the commit. A reader then loads the old row and stores it again. Hence `after_commit`.
- It stores the outdated result of a load that began before a commit and ended after the invalidation. Here each
  invalidation begins a new generation, and a value is stored only in the generation that its load began in (the fill
  guard). The caller still gets the value: its read began before the write was answered.
- It loads one key many times at once. Here concurrent misses share a load (single flight), within one generation: a
  read that begins after a write does not join a load from before it.
- It loads an absent row again at each read. Here None is cached like any value, but only for seconds, because clients
  choose which absent ids they ask for.

Promise: a read that begins after a write of this process was answered never shows older data. A write of another
process shows when the time-to-live ends, at the latest. In production the promise holds across all workers
(production/cache.py).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from backend.infrastructure.database import Database, Tx
from backend.infrastructure.single_flight import SingleFlight

T = TypeVar("T")

ABSENT_TTL_SECONDS = 5.0


class Cache(Protocol):
    """What services read through. Thread-safe."""

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        """The cached value of `key`, or what `load` reads in a snapshot. None stands for an absent row.

        Must be called outside transactions. Raises what `load` raises, and Unavailable; then nothing is stored.
        """

    def invalidate(self, *tags: str) -> None:
        """Forget every value that depends on one of `tags`. Must be called after the commit."""


class NoCache:
    """A Cache that stores nothing: every read shows the latest commit of any process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        with self._database.read() as tx:
            return load(tx)

    def invalidate(self, *tags: str) -> None:
        """Do nothing: nothing is stored."""


class LruCache:
    """A Cache of `size` objects that evicts the least recently used; 0 stores nothing. Thread-safe, one process.

    A list of n items counts as n objects. No value is older than `ttl_seconds` by `clock`. `hits` and `misses` count
    reads, `refused` the values that the fill guard did not store.
    """

    def __init__(
        self, database: Database, size: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.hits = self.misses = self.refused = 0
        self._database = database
        self._size = size
        self._ttl = ttl_seconds
        self._clock = clock
        self._flights: SingleFlight[Any] = SingleFlight()
        self._lock = threading.Lock()  # guards what follows and the counters
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # least recently used first
        self._objects = 0  # in all entries
        self._keys_by_tag: dict[str, set[Hashable]] = {}
        self._generation = 0  # of the fill guard

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.expires > self._clock():
                self._entries.move_to_end(key)
                self.hits += 1
                value: T | None = entry.value  # each key has values of one type
                return value
            self.misses += 1
            generation = self._generation
        loaded: T | None = self._flights.run((key, generation), lambda: self._load(key, load, tags, generation))
        return loaded

    @property
    def coalesced(self) -> int:
        """The misses that shared the load of another."""
        return self._flights.shared

    def invalidate(self, *tags: str) -> None:
        with self._lock:
            self._generation += 1
            for tag in tags:
                for key in list(self._keys_by_tag.get(tag, ())):
                    self._remove(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._generation += 1
            self._entries.clear()
            self._keys_by_tag.clear()
            self._objects = 0

    def _load(self, key: Hashable, load: Callable[[Tx], Any], tags: tuple[str, ...], generation: int) -> Any:
        with self._database.snapshot() as tx:
            value = load(tx)
        ttl = self._ttl if value is not None else min(self._ttl, ABSENT_TTL_SECONDS)
        with self._lock:
            if generation == self._generation:
                self._store(key, _Entry(value, tags, self._clock() + ttl))
            else:
                self.refused += 1
        return value

    def _store(self, key: Hashable, entry: "_Entry") -> None:
        self._remove(key)  # it may have expired
        self._entries[key] = entry
        self._objects += entry.objects
        for tag in entry.tags:
            self._keys_by_tag.setdefault(tag, set()).add(key)
        while self._objects > self._size:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._objects -= entry.objects
        for tag in entry.tags:
            self._keys_by_tag[tag].discard(key)
            if not self._keys_by_tag[tag]:
                del self._keys_by_tag[tag]


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    tags: tuple[str, ...]
    expires: float

    @property
    def objects(self) -> int:
        return max(1, len(self.value)) if isinstance(self.value, list | tuple) else 1
