"""Stale cache: a reader that was overtaken by a write does not put the old value back.

Task: `get_or_load` stores what it loads, unless a write has come in between. A write never waits for a slow load.
Invariant: A read that begins after `invalidate` does not see what was loaded before it.
Hint: At the end of a load, how can the reader know that `invalidate` ran since its beginning? The answer and the
storing are one step, or a write comes between those.
Run: make exercise L=stale_cache
"""

from collections.abc import Callable
from typing import Any


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get_or_load(self, key: str, load: Callable[[], Any]) -> Any:
        if key in self.values:
            return self.values[key]
        value = load()
        self.values[key] = value
        return value

    def invalidate(self, key: str) -> None:
        """A writer calls this after its COMMIT."""
        self.values.pop(key, None)
