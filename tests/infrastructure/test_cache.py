"""The cache of one process, and NoCache: a read that begins after a write was answered sees it."""

import gc
import weakref
from collections.abc import Callable

import pytest

from backend.infrastructure.cache import ABSENT_TTL_SECONDS, NoCache
from tests.infrastructure.worker import PUT, Worker, by_every_writer


@by_every_writer
def test_what_is_cached_is_not_loaded_again(worker, put):
    put("a", 1)
    assert [worker.stock("a") for _ in range(3)] == [1, 1, 1]
    assert (worker.loads, worker.cache.hits, worker.cache.misses) == (1, 2, 1)


@by_every_writer
def test_every_change_is_seen_by_the_next_read(worker, put):
    """A new row, a change, a deletion, and a new row again: alone and in a list."""
    for stock in (1, 2, 2, None, None, 3):
        put("a", stock)
        for _ in range(2):
            assert worker.stock("a") == stock
            assert worker.all() == ([] if stock is None else [("a", stock)])


@by_every_writer
def test_an_absent_row_is_cached_until_it_is_created(worker, put):
    assert [worker.stock("a") for _ in range(3)] == [None, None, None]
    assert worker.loads == 1
    put("a", 1)
    assert worker.stock("a") == 1


@by_every_writer
def test_a_change_invalidates_what_depends_on_it_and_nothing_else(worker, put):
    for product in ("a", "b"):
        put(product, 1)
        worker.stock(product)
    put("a", 2)
    assert (worker.stock("b"), worker.loads) == (1, 2)
    assert (worker.stock("a"), worker.loads) == (2, 3)


def test_falsy_values_are_values(worker):
    for value in (0, "", (), False):
        for _ in range(2):
            found = worker.cache.get_or_load(("key", repr(value)), lambda tx, value=value: value, ())
            assert found is value
    assert worker.cache.misses == 4


def test_a_write_that_is_rolled_back_invalidates_nothing(worker):
    worker.put("a", 1)
    worker.stock("a")
    with pytest.raises(RuntimeError), worker.database.transaction() as tx:
        tx.run(PUT, id="a", stock=2)
        tx.after_commit(lambda: worker.cache.invalidate("products:a"))
        raise RuntimeError
    assert (worker.stock("a"), worker.loads) == (1, 1)


def test_a_load_inside_a_transaction_is_refused(worker):
    """It could see what is never committed."""
    for block in (worker.database.snapshot, worker.database.transaction):
        with block(), pytest.raises(RuntimeError, match="nest"):
            worker.stock("a")


def test_the_least_recently_used_entry_is_evicted(make_worker):
    worker = make_worker(size=2)
    for product in ("a", "b", "a", "c", "a", "b"):
        worker.stock(product)
    assert worker.loads == 4  # a, b, c, and b again


def test_a_list_counts_as_many_objects_as_it_has_items(make_worker):
    """Clients choose which lists they request and how long; an empty list counts as one object."""
    worker = make_worker(size=10)

    def loads(*lengths: int) -> int:
        before = worker.loads
        for length in lengths:
            worker.numbers(length)
        return worker.loads - before

    assert loads(4, 5, 0, 4, 5, 0) == 3  # 10 objects
    assert loads(1) == 1  # evicts 4, which was used before the others
    assert loads(5, 0, 1) == 0
    assert loads(4) == 1
    worker.put("a", 1)
    assert (loads(6, 4), loads(6, 4)) == (2, 0)  # what was invalidated no longer counts
    worker.cache.clear()
    assert (loads(6, 4), loads(6, 4)) == (2, 0)
    assert (loads(11), loads(11)) == (1, 1)  # too many for the cache


def test_an_expired_entry_that_is_loaded_again_is_the_most_recently_used(make_worker):
    now = 1000.0
    worker = make_worker(size=2, clock=lambda: now)
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    now += 60
    for product in ("a", "c", "a"):
        worker.stock(product)
    assert worker.loads == 4  # a, b, a again, c


class Key:
    """A key of the cache that a weak reference can watch."""


class Tag(str):
    """A tag that a weak reference can watch."""

    __slots__ = ("__weakref__",)


FORGET: dict[str, Callable[[Worker], object]] = {
    "evicted": lambda worker: worker.stock("b"),
    "invalidated": lambda worker: worker.put("a", 1),
    "cleared": lambda worker: worker.cache.clear(),
}


@pytest.mark.parametrize("forget", FORGET)
def test_a_removed_entry_takes_no_memory(make_worker, forget):
    """Neither its key nor its tags are kept anywhere."""
    worker = make_worker(size=1)
    key, tag = Key(), Tag("products:a")
    worker.cache.get_or_load(key, lambda tx: 1, (tag,))
    watched = weakref.ref(key), weakref.ref(tag)
    del key, tag
    FORGET[forget](worker)
    worker.cache.get_or_load("other", lambda tx: 1, ())
    gc.collect()
    assert [each() for each in watched] == [None, None]


def test_a_cache_of_size_0_stores_nothing(make_worker):
    worker = make_worker(size=0)
    assert [worker.stock("a"), worker.stock("a")] == [None, None]
    assert worker.loads == 2


READS: dict[str, Callable[[Worker], object]] = {
    "a row": lambda worker: worker.stock("there"),
    "an empty list": lambda worker: worker.numbers(0),
    "an absent row": lambda worker: worker.stock("absent"),
}


@pytest.mark.parametrize(
    ("what", "ttl", "seconds"),
    [
        ("a row", 60, 60),
        ("an empty list", 60, 60),
        ("an absent row", 60, ABSENT_TTL_SECONDS),  # shorter: clients choose which absent ids they ask for
        ("an absent row", 2, 2),
    ],
)
def test_no_entry_outlives_its_time_to_live(make_worker, what, ttl, seconds):
    now = 1000.0
    worker = make_worker(ttl=ttl, clock=lambda: now)
    worker.put("there", 1)
    READS[what](worker)
    now += seconds - 0.01
    READS[what](worker)
    assert worker.loads == 1
    now += 0.01
    READS[what](worker)
    assert worker.loads == 2


def test_no_cache_reads_every_time(worker, product_writer):
    """So it sees the writes of other processes."""
    cache = NoCache(worker.database)
    for stock in (1, 2):
        product_writer.execute(PUT, {"id": "a", "stock": stock})
        assert cache.get_or_load("a", lambda tx: worker.load(tx, "a"), ("products:a",)) == stock
        cache.invalidate("another tag")
    assert worker.loads == 2
