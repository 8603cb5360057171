"""A value that is costly to fetch and may be a few seconds old: it is fetched at most once in that time."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """A call returns the kept value, or fetches a new one if that is `seconds` old by `clock`.

    Thread-safe, one process. Callers that arrive during a fetch wait for it and share its result. An error of `fetch`
    is raised to the caller that ran it and is not kept.
    """

    def __init__(self, fetch: Callable[[], T], seconds: float, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()  # held during a fetch, so that other callers wait for its result
        self._kept: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            # If the clock was set back, the value counts as too old.
            if self._kept is None or not 0 <= self._clock() - self._kept[0] < self._seconds:
                value = self._fetch()
                self._kept = (self._clock(), value)
            return self._kept[1]
