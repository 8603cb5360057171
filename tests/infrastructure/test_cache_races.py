"""The cache under concurrency: loads that overlap with writes, and many readers and writers at once."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.at_once import asleep, at_once
from tests.infrastructure.worker import Worker, by_every_writer

WRITES = 60


class SlowReader:
    """A thread that has loaded product `a` from the database, and returns it after `go_on` is set."""

    def __init__(self, worker: Worker, threads: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._read, self.go_on = threading.Event(), threading.Event()
        self.result: Future[int | None] = threads.submit(self._look_up)
        assert self._read.wait(30)

    def _look_up(self) -> int | None:
        return self._worker.cache.get_or_load("a", self._load, ("products:a",))

    def _load(self, tx) -> int | None:
        stock = self._worker.load(tx, "a")
        self._read.set()
        assert self.go_on.wait(30)
        return stock


@pytest.fixture
def slow_reader(worker) -> Callable[[], SlowReader]:
    with ThreadPoolExecutor(4) as threads:
        yield lambda: SlowReader(worker, threads)


@by_every_writer
@pytest.mark.parametrize("before", [None, 1], ids=["no row", "a row"])
@pytest.mark.parametrize("read_between", [True, False])
def test_a_load_that_began_before_a_write_is_returned_but_not_stored(worker, slow_reader, put, before, read_between):
    """The old value is right for a read that began before the write, and wrong for every later one."""
    if before:
        put("a", before)
    slow = slow_reader()
    put("a", 2)
    if read_between:
        worker.stock("something else")
    slow.go_on.set()
    assert slow.result.result(30) == before
    assert [worker.stock("a"), worker.stock("a")] == [2, 2]


@by_every_writer
def test_a_late_load_does_not_replace_a_newer_one(worker, slow_reader, put):
    """The newer value was loaded and stored while the older load was under way."""
    put("a", 1)
    slow = slow_reader()
    put("a", 2)
    assert worker.stock("a") == 2
    slow.go_on.set()
    assert slow.result.result(30) == 1
    assert worker.stock("a") == 2


@by_every_writer
def test_a_read_after_a_write_does_not_join_a_load_from_before_it(worker, slow_reader, put):
    """It returns although the old load is still under way."""
    put("a", 1)
    slow = slow_reader()
    put("a", 2)
    assert worker.stock("a") == 2
    assert not slow.result.done()
    slow.go_on.set()
    assert slow.result.result(30) == 1


def test_a_load_under_way_when_the_cache_is_cleared_is_not_stored(worker, slow_reader):
    slow = slow_reader()
    worker.cache.clear()
    slow.go_on.set()
    assert slow.result.result(30) is None
    assert (worker.stock("a"), worker.loads, worker.cache.refused) == (None, 2, 1)


def test_concurrent_misses_of_a_key_share_one_load(worker, slow_reader):
    worker.put("a", 1)
    slow = slow_reader()
    seen: list[int | None] = []
    others = [threading.Thread(target=lambda: seen.append(worker.stock("a"))) for _ in range(7)]
    for thread in others:
        thread.start()
    for thread in others:
        asleep(thread)  # it waits for the slow reader's load
    slow.go_on.set()
    for thread in others:
        thread.join()
    assert (slow.result.result(30), seen, worker.loads) == (1, [1] * 7, 1)
    assert (worker.cache.misses, worker.cache.coalesced, worker.cache.refused) == (8, 7, 0)


def test_a_load_that_fails_fails_for_every_waiting_thread_and_stores_nothing(worker):
    """None of eight threads gets a value, and the next load is as if there had been none."""

    def fail(tx) -> None:
        while worker.cache.misses < 8:
            threading.Event().wait(0.001)
        raise LookupError("on purpose")

    def ask() -> str:
        try:
            worker.cache.get_or_load("a", fail, ("products:a",))
        except LookupError as error:
            return str(error)
        finally:
            worker.database.close()
        return "a value"

    assert at_once([ask] * 8) == ["on purpose"] * 8
    assert worker.stock("a") is None
    worker.put("a", 1)
    assert worker.stock("a") == 1


def test_no_reader_sees_less_than_was_answered(worker):
    """Two threads write ever greater stocks; four threads read them, one by one and in a list."""
    products = [f"p{n}" for n in range(3)]
    answered = dict.fromkeys(products, 0)
    stocks, turns, one_writer, done = itertools.count(1), itertools.count(), threading.Lock(), threading.Event()
    stale: list[tuple[str, int, int, int]] = []

    def write() -> None:
        writes = itertools.count(1)
        while next(writes) <= WRITES or not worker.cache.hits:  # a busy machine may start the readers late
            product = products[next(turns) % len(products)]
            with one_writer:  # the order of stocks is the order of commits; readers take no lock
                stock = next(stocks)
                worker.put(product, stock)
                answered[product] = stock
        worker.database.close()

    def write_twice() -> None:
        at_once([write] * 2)
        done.set()

    def read() -> None:
        while not done.is_set():
            for product in products:
                least = answered[product]
                seen, listed = worker.stock(product) or 0, dict(worker.all()).get(product, 0)
                if min(seen, listed) < least:
                    stale.append((product, seen, listed, least))
        worker.database.close()

    at_once([write_twice] + [read] * 4)
    assert stale == []
    assert worker.cache.hits > 0
