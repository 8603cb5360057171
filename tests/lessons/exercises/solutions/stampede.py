"""A lock for each key; under it, the second request finds the value of the first."""

import threading
from collections.abc import Callable
from typing import Any


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.locks: dict[str, threading.Lock] = {}

    def get_or_load(self, key: str, load: Callable[[], Any]) -> Any:
        with self.locks.setdefault(key, threading.Lock()):
            if key not in self.values:
                self.values[key] = load()
            return self.values[key]
