"""A mark that no load can return says that the cache has nothing. None and [] are values like all others."""

from collections.abc import Callable
from typing import Any

MISSING = object()


def get_or_load(cache: dict, key: str, load: Callable[[], Any]) -> Any:
    cached = cache.get(key, MISSING)
    if cached is not MISSING:
        return cached
    cache[key] = value = load()
    return value
