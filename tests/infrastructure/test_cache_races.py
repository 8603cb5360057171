"""The cache while something is under way: loads that overlap with writes, and many readers and writers at once."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.at_once import at_once
from tests.infrastructure.worker import PUT, Worker

WRITES = 30  # of each writer


class SlowReader:
    """A worker's thread that has read product `a` from the database, and goes on with it when it is told to."""

    def __init__(self, worker: Worker, threads: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._read, self.go_on = threading.Event(), threading.Event()
        self.result: Future[int | None] = threads.submit(self._look_up)
        assert self._read.wait(10)

    def _look_up(self) -> int | None:
        return self._worker.cache.get_or_load("a", self._load, ("products:a",))

    def _load(self, tx) -> int | None:
        stock = self._worker.load(tx, "a")
        self._read.set()
        assert self.go_on.wait(10)
        return stock


@pytest.fixture
def slow_reader(worker):
    with ThreadPoolExecutor(4) as threads:
        yield lambda: SlowReader(worker, threads)


@pytest.fixture(params=["itself", "another worker", "an outsider"])
def put(request, worker, make_worker, product_writer) -> Callable[[str, int], None]:
    """Who writes a product's stock."""
    other = make_worker()
    return {
        "itself": worker.put,
        "another worker": other.put,
        "an outsider": lambda product, stock: product_writer.execute(PUT, {"id": product, "stock": stock}),
    }[request.param]


@pytest.mark.parametrize("before", [None, 1], ids=["no row", "a row"])
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed meanwhile", "noticed later"])
def test_a_load_that_began_before_a_write_is_returned_but_not_kept(worker, slow_reader, put, before, noticed):
    """Its read began earlier, so the old value is right for it; for who comes later it is not."""
    if before:
        put("a", before)
    slow = slow_reader()
    put("a", 2)
    if noticed:
        worker.stock("something else")
    slow.go_on.set()
    assert slow.result.result(10) == before
    assert [worker.stock("a"), worker.stock("a")] == [2, 2]


def test_a_late_load_does_not_take_the_place_of_a_newer_one(worker, slow_reader, put):
    """The newer one was loaded and stored while the older was still under way."""
    put("a", 1)
    slow = slow_reader()
    put("a", 2)
    assert worker.stock("a") == 2
    slow.go_on.set()
    assert slow.result.result(10) == 1
    assert worker.stock("a") == 2


def test_a_read_after_a_write_does_not_join_the_flight_of_one_before_it(worker, slow_reader, put):
    """It would wait for an old value. Here it comes back although the old flight has not landed."""
    put("a", 1)
    slow = slow_reader()
    put("a", 2)
    assert worker.stock("a") == 2
    assert not slow.result.done()
    slow.go_on.set()
    assert slow.result.result(10) == 1


def test_a_load_under_way_when_everything_is_forgotten_is_not_kept(worker, slow_reader, product_writer):
    """The log was set back below what the load knew of it: by its numbers alone the value would look fresh."""
    for stock in range(10):
        worker.put("a", stock)
    worker.stock("b")
    slow = slow_reader()
    product_writer.execute("UPDATE products SET stock = 99")
    product_writer.execute("DELETE FROM cache_invalidations WHERE seq > 2")
    worker.stock("something else")
    slow.go_on.set()
    assert slow.result.result(10) == 9
    assert worker.stock("a") == 99


def test_a_load_that_fails_fails_for_all_who_wait_and_keeps_nothing(worker):
    """None of eight gets an answer, and the next load is as if there had been none."""

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
        return "an answer"

    assert at_once([ask] * 8) == ["on purpose"] * 8
    assert worker.stock("a") is None
    worker.put("a", 1)
    assert worker.stock("a") == 1


def test_no_reader_ever_sees_less_than_was_answered(make_worker, product_writer):
    """Two workers and an outsider write ever greater stocks; four threads on both workers read all the time."""
    workers = [make_worker(), make_worker()]
    products = [f"p{n}" for n in range(3)]
    answered = dict.fromkeys(products, 0)
    stocks = itertools.count(1)
    one_writer = threading.Lock()
    writing = [True] * 3
    stale: list[tuple[str, int, int, int]] = []

    def outside(product: str, stock: int) -> None:
        product_writer.execute(PUT, {"id": product, "stock": stock})

    def write(number: int, put: Callable[[str, int], None]) -> None:
        for n in range(WRITES):
            product = products[n % len(products)]
            with one_writer:  # so that the order of stocks is that of commits; readers have no lock
                stock = next(stocks)
                put(product, stock)
                answered[product] = stock
        writing[number] = False

    def read(worker: Worker) -> None:
        while any(writing):
            for product in products:
                least = answered[product]
                seen, listed = worker.stock(product) or 0, dict(worker.all() or ()).get(product, 0)
                if min(seen, listed) < least:
                    stale.append((product, seen, listed, least))
        worker.database.close()

    puts = [workers[0].put, workers[1].put, outside]
    at_once([lambda n=n: write(n, puts[n]) for n in range(3)] + [lambda n=n: read(workers[n % 2]) for n in range(4)])
    assert stale == []
    assert sum(worker.cache.hits for worker in workers) > 0
