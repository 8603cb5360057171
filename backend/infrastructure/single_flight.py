"""Single flight: of many who want the same at once, one fetches it and all get it (after groupcache's package)."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.value: T
        self.error: BaseException | None = None


class SingleFlight(Generic[T]):
    """Thread-safe, one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _flights
        self._flights: dict[Hashable, _Flight[T]] = {}

    def run(self, key: Hashable, fetch: Callable[[], T]) -> T:
        """`fetch()`, or the result of the one under way for `key`. If it fails, all who wait get its error."""
        with self._lock:
            flight = self._flights.get(key)
            if first := flight is None:
                flight = self._flights[key] = _Flight()
        if first:
            self._fly(key, flight, fetch)
        flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        return flight.value

    def forget(self) -> None:
        """Whoever asks from now on joins none of the flights under way: what they fetch may be outdated."""
        with self._lock:
            self._flights.clear()

    def _fly(self, key: Hashable, flight: _Flight[T], fetch: Callable[[], T]) -> None:
        try:
            flight.value = fetch()
        except BaseException as error:
            flight.error = error
        finally:
            with self._lock:
                if self._flights.get(key) is flight:  # a forgotten flight may have been followed by another
                    del self._flights[key]
            flight.landed.set()
