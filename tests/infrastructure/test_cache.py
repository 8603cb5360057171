"""The cache of a worker, and those who write: a read that begins after a write was answered sees it (decision 4)."""

import gc
import sqlite3
import threading
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from backend.errors import Unavailable
from backend.infrastructure.cache import ABSENT_TTL_SECONDS
from tests.infrastructure.worker import DELETE, PUT, Worker

Put = Callable[[str, int | None], None]


@pytest.fixture(params=["itself", "another thread", "another worker", "an outsider"])
def put(request: pytest.FixtureRequest, worker: Worker, make_worker: Callable[..., Worker], product_writer) -> Put:
    """Who writes: a product's stock, None deletes it."""

    def in_a_thread(product: str, stock: int | None) -> None:
        thread = threading.Thread(target=worker.put, args=(product, stock))
        thread.start()
        thread.join()

    def outside(product: str, stock: int | None) -> None:
        product_writer.execute(DELETE if stock is None else PUT, {"id": product, "stock": stock})

    other = make_worker()
    return {
        "itself": worker.put, "another thread": in_a_thread, "another worker": other.put, "an outsider": outside,
    }[request.param]  # fmt: skip


def test_what_is_known_is_not_loaded_again(worker, put):
    put("a", 1)
    assert [worker.stock("a") for _ in range(3)] == [1, 1, 1]
    assert (worker.loads, worker.cache.hits, worker.cache.misses) == (1, 2, 1)


def test_every_change_is_seen_by_the_next_read(worker, put):
    """A new row, a change, its end, and a new beginning: alone and in a list."""
    for stock in (1, 2, 2, None, None, 3):
        put("a", stock)
        for _ in range(2):
            assert worker.stock("a") == stock
            assert worker.all() == ([] if stock is None else [("a", stock)])


def test_a_row_that_is_not_there_is_remembered_until_it_is(worker, put):
    """Asked for again it costs no load; it is there the moment that it was created."""
    assert [worker.stock("a") for _ in range(3)] == [None, None, None]
    assert worker.loads == 1
    put("a", 1)
    assert worker.stock("a") == 1


def test_values_that_look_like_nothing_are_values(worker):
    for value in (0, "", (), False):
        for _ in range(2):
            found = worker.cache.get_or_load(("key", repr(value)), lambda tx, value=value: value, ())
            assert found is value
    assert worker.cache.misses == 4


def test_a_change_forgets_what_it_is_about_and_nothing_else(worker, put):
    for product in ("a", "b"):
        put(product, 1)
        worker.stock(product)
    put("a", 2)
    assert (worker.stock("b"), worker.loads) == (1, 2)
    assert (worker.stock("a"), worker.loads) == (2, 3)


def test_what_was_rolled_back_is_never_seen_and_hides_nothing(worker, make_worker):
    """The next write, by another worker, takes its place in the log, and is heard of."""
    other = make_worker()
    worker.put("a", 1)
    worker.stock("a")
    with pytest.raises(RuntimeError), worker.database.transaction() as tx:
        tx.run(PUT, id="a", stock=2)
        raise RuntimeError
    assert (worker.stock("a"), worker.loads) == (1, 1)
    other.put("a", 3)
    assert worker.stock("a") == 3


def test_a_write_of_ones_own_does_not_hide_those_of_others(worker, make_worker):
    """Another worker changes a; this one, which has not looked since, changes b: now it must know of both."""
    other = make_worker()
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    other.put("a", 2)
    worker.put("b", 2)
    assert (worker.stock("a"), worker.stock("b")) == (2, 2)


def test_a_reader_that_has_slept_through_other_threads_looks_is_not_behind(worker, make_worker):
    """Each thread asks its own connection; that another has obeyed the log already must not confuse it."""
    other = make_worker()
    worker.put("a", 1)
    worker.stock("a")
    other.put("a", 2)
    seen: list[int | None] = []
    thread = threading.Thread(target=lambda: seen.append(worker.stock("a")))
    thread.start()
    thread.join()
    assert (seen, worker.stock("a"), worker.loads) == ([2], 2, 2)


def test_it_cannot_be_asked_inside_a_transaction(worker):
    """There it would not hear of others' writes."""
    for block in (worker.database.snapshot, worker.database.transaction):
        with block(), pytest.raises(RuntimeError, match="nest"):
            worker.stock("a")


def test_it_keeps_what_was_used_last(make_worker):
    worker = make_worker(size=2)
    for product in ("a", "b", "a", "c", "a", "b"):
        worker.stock(product)
    assert worker.loads == 4  # a, b, c, and b again


def test_a_list_counts_as_many_objects_as_it_has(make_worker, product_writer):
    """Clients choose which lists they ask for, and how long ones; an empty one is an object too."""
    worker = make_worker(size=10)

    def loads(*lengths):
        before = worker.loads
        for length in lengths:
            worker.numbers(length)
        return worker.loads - before

    assert loads(4, 5, 0, 4, 5, 0) == 3  # of 10
    assert loads(1) == 1  # 4 has to go, which was used before the others
    assert loads(5, 0, 1) == 0
    assert loads(4) == 1
    worker.put("a", 1)
    assert (loads(6, 4), loads(6, 4)) == (2, 0)  # those that were forgotten count no more
    worker.put("b", 1)
    product_writer.execute("DELETE FROM cache_invalidations")
    worker.put("c", 1)
    assert (loads(6, 4), loads(6, 4)) == (2, 0)  # after a gap in the log, too
    assert (loads(11), loads(11)) == (1, 1)  # too many for all


def test_what_was_loaded_again_was_used_last(make_worker):
    """Its time was over, and its new value is younger than all others: not the next to go."""
    now = 1000.0
    worker = make_worker(size=2, clock=lambda: now)
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    now += 60
    for product in ("a", "c", "a"):
        worker.stock(product)
    assert worker.loads == 4  # a, b, a again, c


def test_while_no_writer_commits_a_hit_costs_one_statement(make_worker, monkeypatch):
    """It asks whether anything was committed, and reads no log."""
    statements: list[str] = []

    class Traced(sqlite3.Connection):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            self.set_trace_callback(statements.append)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Traced))
    worker = make_worker()
    worker.stock("a")
    worker.stock("a")
    statements.clear()
    worker.stock("a")
    assert len(statements) == 1


def test_a_write_of_what_is_not_cached_forgets_nothing(worker, make_worker):
    """Not even what was changed last."""
    other = make_worker()
    other.put("a", 1)
    worker.stock("a")
    worker.all()
    with other.database.transaction() as tx:
        tx.run("DELETE FROM idempotency_keys")
        tx.run("INSERT INTO reset_requests (id, email) VALUES ('x', 'y')")
    assert (worker.stock("a"), worker.all()) == (1, [("a", 1)])
    assert (worker.cache.hits, worker.cache.misses) == (2, 2)


class Key:
    """A key of the cache that a weak reference can watch."""


class Topic(str):
    """A topic that a weak reference can watch."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("why", ["evicted", "changed", "a gap in the log"])
def test_what_is_forgotten_takes_no_memory(make_worker, product_writer, why):
    """Neither the key nor what it was about is kept anywhere."""
    worker = make_worker(size=1)
    key, tag = Key(), Topic("products:a")
    worker.cache.get_or_load(key, lambda tx: 1, (tag,))
    watched = weakref.ref(key), weakref.ref(tag)
    del key, tag
    if why == "evicted":
        worker.stock("b")
    elif why == "changed":
        worker.put("a", 1)
    else:
        product_writer.execute(PUT, {"id": "c", "stock": 1})
        product_writer.execute("DELETE FROM cache_invalidations")
        product_writer.execute(PUT, {"id": "d", "stock": 1})
    worker.cache.get_or_load("other", lambda tx: 1, ())
    gc.collect()
    assert [each() for each in watched] == [None, None]


def test_a_cache_of_no_size_keeps_nothing(make_worker):
    worker = make_worker(size=0)
    assert [worker.stock("a"), worker.stock("a")] == [None, None]
    assert worker.loads == 2


@pytest.mark.parametrize(("there", "seconds"), [(True, 60.0), (False, ABSENT_TTL_SECONDS)])
def test_nothing_is_kept_longer_than_its_time(make_worker, there, seconds):
    """A minute for what there is, seconds for what there is not: clients choose which absent ids they ask for."""
    now = 1000.0
    worker = make_worker(clock=lambda: now)
    if there:
        worker.put("a", 1)
    worker.stock("a")
    now += seconds - 0.01
    worker.stock("a")
    assert worker.loads == 1
    now += 0.01
    worker.stock("a")
    assert worker.loads == 2


def test_a_gap_in_the_log_forgets_everything(worker, product_writer):
    """Pruned beyond what this worker has obeyed: it cannot know what it has missed. After that it caches again."""
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    product_writer.execute(PUT, {"id": "a", "stock": 2})
    product_writer.execute("DELETE FROM cache_invalidations")
    product_writer.execute(PUT, {"id": "c", "stock": 1})
    assert [worker.stock(product) for product in ("a", "b", "a", "b")] == [2, 1, 2, 1]
    assert worker.loads == 4


def test_a_gap_of_a_single_entry_forgets_everything(worker, product_writer):
    """A change of a product makes two; only the first is gone, and what is left says nothing of that product."""
    worker.put("a", 1)
    worker.stock("a")
    product_writer.execute(PUT, {"id": "a", "stock": 2})
    product_writer.execute("DELETE FROM cache_invalidations WHERE seq < (SELECT max(seq) FROM cache_invalidations)")
    ((key,),) = product_writer.execute("SELECT key FROM cache_invalidations")
    assert key == "products"
    assert worker.stock("a") == 2


def test_a_log_that_is_complete_forgets_only_what_it_names(worker, product_writer):
    """All that this worker has obeyed is gone from it, and nothing else."""
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    product_writer.execute("DELETE FROM cache_invalidations")
    product_writer.execute(PUT, {"id": "a", "stock": 2})
    assert (worker.stock("b"), worker.loads) == (1, 2)
    assert (worker.stock("a"), worker.loads) == (2, 3)


def test_a_log_that_could_not_be_read_is_read_the_next_time(worker, product_writer, monkeypatch):
    """Though nothing is committed in between: the change is still unknown."""
    worker.put("a", 1)
    worker.stock("a")
    product_writer.execute(PUT, {"id": "a", "stock": 2})
    only_row = worker.database.only_row

    def unreadable(sql, **parameters):
        if "cache_invalidations" in sql:
            raise Unavailable("on purpose")
        return only_row(sql, **parameters)

    with monkeypatch.context() as patch:
        patch.setattr(worker.database, "only_row", unreadable)
        with pytest.raises(Unavailable):
            worker.stock("a")
    assert worker.stock("a") == 2


@pytest.mark.parametrize("later", [0, 1])
def test_a_log_that_was_set_back_forgets_everything(worker, product_writer, later):
    """An older database in its place, with other rows: and what changes afterwards is heard of as well."""
    for stock in range(10):
        worker.put("a", stock)
    worker.stock("a")
    product_writer.execute("BEGIN")
    product_writer.execute("UPDATE products SET stock = 99")
    product_writer.execute("DELETE FROM cache_invalidations WHERE seq > 2")
    product_writer.execute("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'cache_invalidations'")
    product_writer.execute("COMMIT")
    for stock in (99, 100):
        if stock == 100 and later:
            product_writer.execute(PUT, {"id": "a", "stock": 100})
        elif stock == 100:
            worker.put("a", 100)
        assert [worker.stock("a"), worker.stock("a")] == [stock, stock]
    assert worker.loads == 3


def test_the_log_is_pruned(worker, product_writer):
    """It keeps its last entries, and about as many as that."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :many) SELECT i FROM n"
    product_writer.execute(f"INSERT INTO cache_invalidations (key) SELECT 'old' FROM ({many})", {"many": 15_000})
    worker.put("a", 1)
    ((first, last, count),) = product_writer.execute("SELECT min(seq), max(seq), count(*) FROM cache_invalidations")
    assert 10_000 <= count <= 11_000
    assert last - first + 1 == count
    assert worker.stock("a") == 1


def test_a_log_that_has_grown_long_is_pruned_bit_by_bit(product_writer):
    """As it may be after years without pruning: no single write pays for all of it."""
    ((trigger,),) = product_writer.execute("SELECT sql FROM sqlite_schema WHERE name = 'cache_invalidations_pruned'")
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :many) SELECT i FROM n"
    product_writer.execute("DROP TRIGGER cache_invalidations_pruned")
    product_writer.execute(f"INSERT INTO cache_invalidations (key) SELECT 'old' FROM ({many})", {"many": 30_000})
    product_writer.execute(trigger)
    counts = []
    for _ in range(25):
        product_writer.execute(f"INSERT INTO cache_invalidations (key) SELECT 'new' FROM ({many})", {"many": 1000})
        counts += product_writer.execute("SELECT count(*) FROM cache_invalidations").fetchone()
    assert counts[:3] == [29_000, 28_000, 27_000]
    assert counts[-1] == 10_000
