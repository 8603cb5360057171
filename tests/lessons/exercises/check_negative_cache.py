"""`negative_cache.py` is right if every value is loaded once, whatever it is."""

import pytest

from tests.lessons.exercises.attack import expect
from tests.lessons.exercises.negative_cache import get_or_load
from tests.lessons.lesson_10_negative_cache import REQUESTS, verdict

VALUES = {"a product": "tea", "an absent product": None, "an empty list": [], "a stock of 0": 0}


@pytest.mark.parametrize(("what", "value"), VALUES.items(), ids=VALUES)
def test_a_value_is_loaded_once(what, value):
    cache, loads = {}, []

    def load():
        loads.append(what)
        return value

    assert [get_or_load(cache, what, load) for _ in range(REQUESTS)] == [value] * REQUESTS
    expect(verdict(what, len(loads), 1))
