"""Single flight: concurrent calls for one key share one fetch."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from backend.infrastructure.single_flight import SingleFlight


class Key:
    """A key that counts its look-ups: `asked` is set after `times` of them. Each call hashes it under the lock."""

    def __init__(self, times: int) -> None:
        self._missing = times
        self.asked = threading.Event()

    def __hash__(self) -> int:
        self._missing -= 1
        if self._missing <= 0:
            self.asked.set()
        return 1


class Slow:
    """A fetch that ends after `end` is set: it returns its value, or raises it if it is an exception."""

    def __init__(self, value: object) -> None:
        self.calls = 0
        self.begun, self.end = threading.Event(), threading.Event()
        self._value = value

    def __call__(self) -> object:
        self.calls += 1
        self.begun.set()
        assert self.end.wait(30)
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value


@pytest.fixture
def flights() -> SingleFlight[Any]:
    return SingleFlight()


@pytest.fixture
def run(flights: SingleFlight[Any]):
    """Call in another thread: `run(key, fetch).result(30)` is the result."""
    with ThreadPoolExecutor(20) as threads:

        def run(key: object, fetch: Callable[[], object]) -> Future[Any]:
            return threads.submit(flights.run, key, fetch)

        yield run


def refuse() -> None:
    raise AssertionError("another call was to fetch this")


def test_of_twenty_concurrent_calls_one_fetches_and_all_get_its_result(run):
    fetch, key = Slow(object()), Key(21)  # the first call looks it up and then stores it
    first = run(key, fetch)
    assert fetch.begun.wait(30)
    others = [run(key, refuse) for _ in range(19)]
    assert key.asked.wait(30)
    fetch.end.set()
    assert {id(future.result(30)) for future in [first, *others]} == {id(first.result())}
    assert fetch.calls == 1


@pytest.mark.parametrize("error", [ValueError("on purpose"), SystemExit("on purpose")])
def test_an_error_is_raised_to_all_concurrent_calls_and_not_kept(run, flights, error):
    """The next call fetches again."""
    fetch, key = Slow(error), Key(6)
    futures = [run(key, fetch)]
    assert fetch.begun.wait(30)
    futures += [run(key, refuse) for _ in range(4)]
    assert key.asked.wait(30)
    fetch.end.set()
    for future in futures:
        with pytest.raises(type(error), match="on purpose"):
            future.result(30)
    assert flights.run(key, lambda: "fine") == "fine"


def test_a_result_is_not_kept(flights):
    assert [flights.run("key", lambda value=value: value) for value in (1, None, 2)] == [1, None, 2]


def test_calls_for_different_keys_do_not_wait_for_each_other(run, flights):
    slow = Slow("slow")
    waiting = run("a", slow)
    assert slow.begun.wait(30)
    assert flights.run("b", lambda: "quick") == "quick"
    slow.end.set()
    assert waiting.result(30) == "slow"
