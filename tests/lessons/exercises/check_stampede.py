"""`stampede.py` is right if fifty requests for one key are one load, and two keys do not wait for each other."""

import pytest

from tests.at_once import at_once
from tests.lessons import Verdict
from tests.lessons.exercises.attack import expect, in_thread, wait_for
from tests.lessons.exercises.stampede import Cache
from tests.lessons.lesson_12_stampede import CROWD, verdict


def test_requests_for_one_key_are_one_load():
    cache, loads = Cache(), []

    def load():
        loads.append("the expensive query")
        wait_for(lambda: len(loads) == CROWD)  # it takes so long that all fifty requests miss
        return "a product"

    answers = at_once([lambda: cache.get_or_load("product", load)] * CROWD)
    expect(verdict(len(loads), answers.count("a product")))


def test_loads_of_different_keys_run_side_by_side():
    cache, loading = Cache(), []

    def load():
        loading.append("a load")
        return wait_for(lambda: len(loading) == 2, looks=1000)

    beside = at_once([lambda key=key: cache.get_or_load(key, load) for key in ("tea", "coffee")])
    says = f"two keys: their loads run {'side by side' if all(beside) else 'one after the other'}"
    expect(Verdict(all(beside), beside.count(False), says))


def test_a_load_that_failed_is_tried_again():
    cache = Cache()

    def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.get_or_load("product", fail)
    assert in_thread(lambda: cache.get_or_load("product", lambda: "a product")) == "a product"
