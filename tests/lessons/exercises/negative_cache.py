"""Negative cache: "there is none" is an answer, too.

Task: A hundred requests for one key load its value once, also if that value is None, an empty list or 0.
Invariant: What was loaded is found.
Hint: `None` can be a value. What else can stand for "not in the cache"?
Run: make exercise L=negative_cache
"""

from collections.abc import Callable
from typing import Any


def get_or_load(cache: dict, key: str, load: Callable[[], Any]) -> Any:
    cached = cache.get(key)
    if cached:
        return cached
    value = load()
    if value is not None:
        cache[key] = value
    return value
