"""The fill guard: a load stores its value only if the number of invalidations is what it was at its beginning."""

import threading
from collections.abc import Callable
from typing import Any


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.invalidations = 0
        self.lock = threading.Lock()

    def get_or_load(self, key: str, load: Callable[[], Any]) -> Any:
        with self.lock:
            if key in self.values:
                return self.values[key]
            before = self.invalidations
        value = load()
        with self.lock:
            if self.invalidations == before:
                self.values[key] = value
        return value

    def invalidate(self, key: str) -> None:
        """A writer calls this after its COMMIT."""
        with self.lock:
            self.invalidations += 1
            self.values.pop(key, None)
