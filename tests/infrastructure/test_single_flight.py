"""Single flight: of many who want the same at once one fetches it, and nobody joins a flight that was forgotten."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from backend.infrastructure.single_flight import SingleFlight


class Key:
    """A key that tells when it has been asked for `times` times: it is hashed by each who asks, under the lock."""

    def __init__(self, times: int) -> None:
        self._missing = times
        self.asked = threading.Event()

    def __hash__(self) -> int:
        self._missing -= 1
        if self._missing <= 0:
            self.asked.set()
        return 1


class Slow:
    """A fetch that begins, and ends when it is told to: with its value, or by raising it."""

    def __init__(self, value: object) -> None:
        self.calls = 0
        self.begun, self.end = threading.Event(), threading.Event()
        self._value = value

    def __call__(self) -> object:
        self.calls += 1
        self.begun.set()
        assert self.end.wait(10)
        if isinstance(self._value, BaseException):
            raise self._value
        return self._value


@pytest.fixture
def flights() -> SingleFlight[Any]:
    return SingleFlight()


@pytest.fixture
def run(flights: SingleFlight[Any]):
    """Ask in a thread: `run(key, fetch).result(10)` is what it got."""
    with ThreadPoolExecutor(20) as threads:

        def run(key: object, fetch: Callable[[], object]) -> Future[Any]:
            return threads.submit(flights.run, key, fetch)

        yield run


def refuse() -> None:
    raise AssertionError("this was to be fetched by another")


def test_of_twenty_at_once_one_fetches_and_all_get_it(run):
    fetch, key = Slow(object()), Key(21)  # the first asks twice: is it there, and then it is
    first = run(key, fetch)
    assert fetch.begun.wait(10)
    others = [run(key, refuse) for _ in range(19)]
    assert key.asked.wait(10)
    fetch.end.set()
    assert {id(future.result(10)) for future in [first, *others]} == {id(first.result())}
    assert fetch.calls == 1


@pytest.mark.parametrize("error", [ValueError("on purpose"), SystemExit("on purpose")])
def test_a_failure_is_everybodys_and_leaves_nothing_behind(run, flights, error):
    """The next who asks fetches anew."""
    fetch, key = Slow(error), Key(6)
    futures = [run(key, fetch)]
    assert fetch.begun.wait(10)
    futures += [run(key, refuse) for _ in range(4)]
    assert key.asked.wait(10)
    fetch.end.set()
    for future in futures:
        with pytest.raises(type(error), match="on purpose"):
            future.result(10)
    assert flights.run(key, lambda: "well") == "well"


def test_what_has_landed_is_not_kept(flights):
    assert [flights.run("key", lambda value=value: value) for value in (1, None, 2)] == [1, None, 2]


def test_keys_fly_apart(run, flights):
    slow = Slow("slow")
    waiting = run("a", slow)
    assert slow.begun.wait(10)
    assert flights.run("b", lambda: "quick") == "quick"
    slow.end.set()
    assert waiting.result(10) == "slow"


def test_nobody_joins_a_flight_that_was_forgotten(run, flights):
    """Who had joined it gets what it brings; who asks later starts another, which it does not disturb in landing."""
    old, new, key = Slow("old"), Slow("new"), Key(3)
    first = run(key, old)
    assert old.begun.wait(10)
    joined = run(key, refuse)
    assert key.asked.wait(10)
    flights.forget()
    second = run(key, new)
    assert new.begun.wait(10)
    old.end.set()
    assert [first.result(10), joined.result(10)] == ["old", "old"]
    key.__init__(1)
    late = run(key, refuse)
    assert key.asked.wait(10)
    new.end.set()
    assert [second.result(10), late.result(10)] == ["new", "new"]
