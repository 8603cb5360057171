"""`stale_cache.py` is right if no read shows the old price after the write."""

import pytest

from tests.lessons import Verdict
from tests.lessons.exercises.attack import expect, in_thread
from tests.lessons.exercises.stale_cache import Cache
from tests.lessons.lesson_11_stale_cache import NEW, OLD, READS, verdict


@pytest.mark.parametrize("other_readers", [0, 1], ids=["the reader is alone", "another reader sees the new price"])
def test_an_overtaken_reader_does_not_put_the_old_price_back(other_readers):
    cache, database = Cache(), {"price": OLD}

    def load():
        return database["price"]

    def write():
        database["price"] = NEW
        cache.invalidate("price")
        assert [cache.get_or_load("price", load) for _ in range(other_readers)] == [NEW] * other_readers

    def slow_load():
        price = load()
        in_thread(write)
        return price

    cache.get_or_load("price", slow_load)
    seen = [cache.get_or_load("price", load) for _ in range(READS)]
    expect(verdict("a reader overtaken by a write", seen))


def test_what_no_write_has_overtaken_is_loaded_once():
    cache, loads = Cache(), []
    for _ in range(2):
        for _ in range(READS):
            cache.get_or_load("price", lambda: loads.append("a load"))
        cache.invalidate("price")
    expect(Verdict(len(loads) == 2, len(loads), f"{2 * READS} reads and a write between them: {len(loads)} loads"))
