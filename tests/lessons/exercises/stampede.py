"""Stampede: fifty requests for one cold key are one load.

Task: The first request loads, the others wait for its value. Requests for another key do not wait.
Invariant: At no time do two loads of one key run. A load that fails is tried again by the next request.
Hint: One lock for the whole cache is too much. `dict.setdefault` makes an entry for a key and is one step; after the
wait, look again.
Run: make exercise L=stampede
"""

from collections.abc import Callable
from typing import Any


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get_or_load(self, key: str, load: Callable[[], Any]) -> Any:
        if key not in self.values:
            self.values[key] = load()
        return self.values[key]
