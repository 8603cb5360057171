"""The coherent cache and its log: a worker sees every commit, whichever process wrote and whatever the log lost."""

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from backend.errors import Unavailable
from tests.at_once import at_once
from tests.infrastructure.worker import PUT, Worker, workers
from tests.waiting import wait_until

WRITES = 30  # of each writer


@pytest.fixture
def make_worker(settings) -> Iterator[Callable[..., Worker]]:
    with workers(settings, "production") as make:
        yield make


@pytest.fixture
def worker(make_worker) -> Worker:
    return make_worker()


@pytest.fixture
def other(make_worker) -> Worker:
    """Another worker on the same database."""
    return make_worker()


@pytest.fixture
def outsider(database_path: Path) -> Iterator[sqlite3.Connection]:
    """A program that invalidates no cache."""
    with closing(sqlite3.connect(database_path, isolation_level=None, check_same_thread=False)) as connection:
        yield connection


def test_a_write_of_its_own_does_not_hide_another_workers(worker, other):
    """Another worker changes `a`, then this one changes `b` without a lookup in between. Its next lookups show both."""
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    other.put("a", 2)
    worker.put("b", 2)
    assert (worker.stock("a"), worker.stock("b")) == (2, 2)


def test_a_write_that_is_rolled_back_does_not_hide_another_workers(worker, other):
    """The other worker's entry in the log takes the place of the one that was rolled back."""
    worker.put("a", 1)
    worker.stock("a")
    with pytest.raises(RuntimeError), worker.database.transaction() as tx:
        tx.run(PUT, id="a", stock=2)
        raise RuntimeError
    assert (worker.stock("a"), worker.loads) == (1, 1)
    other.put("a", 3)
    assert worker.stock("a") == 3


def test_a_thread_finds_nothing_new_in_what_another_thread_has_applied(worker, other):
    """Each thread asks its own connection for commits; the log is applied once for all threads."""
    worker.put("a", 1)
    worker.stock("a")
    other.put("a", 2)
    seen: list[int | None] = []
    thread = threading.Thread(target=lambda: seen.append(worker.stock("a")))
    thread.start()
    thread.join()
    assert (seen, worker.stock("a"), worker.loads) == ([2], 2, 2)


def test_a_read_inside_a_transaction_is_refused_even_if_the_cache_has_the_value(worker):
    """In a transaction the connection does not report other processes' commits."""
    worker.stock("a")
    for block in (worker.database.snapshot, worker.database.transaction):
        with block(), pytest.raises(RuntimeError, match="nest"):
            worker.stock("a")


def test_a_hit_runs_one_statement_while_no_writer_commits(make_worker, monkeypatch):
    """It asks for the version and does not read the log."""
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


def test_a_write_of_a_table_that_is_not_cached_invalidates_nothing(worker, other):
    other.put("a", 1)
    worker.stock("a")
    worker.all()
    with other.database.transaction() as tx:
        tx.run("DELETE FROM idempotency_keys")
        tx.run("INSERT INTO reset_requests VALUES ('x', 'y', 1)")
    assert (worker.stock("a"), worker.all()) == (1, [("a", 1)])
    assert (worker.cache.hits, worker.cache.misses) == (2, 2)


def test_a_gap_in_the_log_clears_the_cache(worker, outsider):
    """Entries that this worker has not applied were pruned. After that it caches again."""
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    outsider.execute(PUT, {"id": "a", "stock": 2})
    outsider.execute("DELETE FROM cache_invalidations")
    outsider.execute(PUT, {"id": "c", "stock": 1})
    assert [worker.stock(product) for product in ("a", "b", "a", "b")] == [2, 1, 2, 1]
    assert worker.loads == 4


def test_a_gap_of_a_single_entry_clears_the_cache(worker, outsider):
    """A change of a product makes two entries. The first is gone, and the second does not name that product."""
    worker.put("a", 1)
    worker.stock("a")
    outsider.execute(PUT, {"id": "a", "stock": 2})
    outsider.execute("DELETE FROM cache_invalidations WHERE seq < (SELECT max(seq) FROM cache_invalidations)")
    ((key,),) = outsider.execute("SELECT key FROM cache_invalidations")
    assert key == "products"
    assert worker.stock("a") == 2


def test_pruning_of_applied_entries_is_no_gap(worker, outsider):
    """Exactly the applied entries are gone: the worker invalidates only the tags of the others."""
    for product in ("a", "b"):
        worker.put(product, 1)
        worker.stock(product)
    outsider.execute("DELETE FROM cache_invalidations")
    outsider.execute(PUT, {"id": "a", "stock": 2})
    assert (worker.stock("b"), worker.loads) == (1, 2)
    assert (worker.stock("a"), worker.loads) == (2, 3)


def test_a_log_that_could_not_be_read_is_read_at_the_next_lookup(worker, outsider, monkeypatch):
    """Although there is no new commit: the last one is still to be applied."""
    worker.put("a", 1)
    worker.stock("a")
    outsider.execute(PUT, {"id": "a", "stock": 2})

    def unreadable():
        raise Unavailable("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(worker.database, "read", unreadable)
        with pytest.raises(Unavailable):
            worker.stock("a")
    assert worker.stock("a") == 2


def set_back(outsider: sqlite3.Connection) -> None:
    """Make the database look as if a backup had been restored: its log ends at entry 2, and its rows differ."""
    outsider.execute("BEGIN")
    outsider.execute("UPDATE products SET stock = 99")
    outsider.execute("DELETE FROM cache_invalidations WHERE seq > 2")
    outsider.execute("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'cache_invalidations'")
    outsider.execute("COMMIT")


@pytest.mark.parametrize("writer", ["itself", "an outsider"])
def test_a_log_that_was_set_back_clears_the_cache(worker, outsider, writer):
    """Later changes are seen as well."""
    for stock in range(10):
        worker.put("a", stock)
    worker.stock("a")
    set_back(outsider)
    assert [worker.stock("a"), worker.stock("a")] == [99, 99]
    if writer == "itself":
        worker.put("a", 100)
    else:
        outsider.execute(PUT, {"id": "a", "stock": 100})
    assert [worker.stock("a"), worker.stock("a")] == [100, 100]
    assert worker.loads == 3


def test_after_the_log_was_set_back_new_entries_with_old_numbers_are_applied(worker, outsider):
    for stock in range(10):
        worker.put("a", stock)
    worker.stock("a")
    set_back(outsider)
    assert worker.stock("a") == 99
    for product in ("a", *"bcdefghijkl"):  # the log grows beyond where it was, unseen
        outsider.execute(PUT, {"id": product, "stock": 100})
    assert worker.stock("a") == 100


def test_a_load_under_way_when_the_log_is_set_back_is_not_stored(worker, outsider):
    """It has read the old rows."""
    for stock in range(10):
        worker.put("a", stock)
    worker.stock("b")
    has_read, go_on = threading.Event(), threading.Event()

    def load(tx) -> int | None:
        stock = worker.load(tx, "a")
        has_read.set()
        assert go_on.wait(30)
        return stock

    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(worker.cache.get_or_load, "a", load, ("products:a",))
        assert has_read.wait(30)
        set_back(outsider)
        worker.stock("something else")
        go_on.set()
        assert slow.result(30) == 9
    assert worker.stock("a") == 99


def test_no_reader_of_any_worker_sees_less_than_was_answered(worker, other, outsider):
    """Two workers and an outsider write ever greater stocks; four threads of both workers read all the time."""
    products = [f"p{n}" for n in range(3)]
    answered = dict.fromkeys(products, 0)
    stocks, one_writer, done = itertools.count(1), threading.Lock(), threading.Event()
    stale: list[tuple[str, int, int, int]] = []
    rounds: list[Worker] = []  # of the readers; at least one between two writes of a writer

    def write(put: Callable[[str, int], object]) -> None:
        for product in products * (WRITES // len(products)):
            with one_writer:  # the order of stocks is the order of commits; readers take no lock
                stock = next(stocks)
                put(product, stock)
                answered[product] = stock
            seen = len(rounds)
            wait_until(lambda seen=seen: len(rounds) > seen)

    def write_all() -> None:
        puts = [worker.put, other.put, lambda product, stock: outsider.execute(PUT, {"id": product, "stock": stock})]
        at_once([partial(write, put) for put in puts])
        done.set()

    def read(reader: Worker) -> None:
        while not done.is_set():
            for product in products:
                least = answered[product]
                seen, listed = reader.stock(product) or 0, dict(reader.all()).get(product, 0)
                if min(seen, listed) < least:
                    stale.append((product, seen, listed, least))
            rounds.append(reader)
        reader.database.close()

    at_once([write_all] + [partial(read, reader) for reader in (worker, other) * 2])
    assert stale == []
    assert worker.cache.hits + other.cache.hits > 0
