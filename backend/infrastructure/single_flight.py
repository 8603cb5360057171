"""Single flight: of concurrent calls for one key, the first runs and the others wait for its result.

Without it, the expiry of a popular key makes every thread load the same value at once. After Go's package
`golang.org/x/sync/singleflight`.

Promise: at most one call a key runs at a time, in one process. Results are not kept: a call that arrives after the
first one has ended runs again.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Thread-safe. `shared` counts the calls that got the result of another."""

    def __init__(self) -> None:
        self.shared = 0
        self._lock = threading.Lock()  # guards what follows and the counter
        self._flights: dict[Hashable, _Flight[T]] = {}

    def run(self, key: Hashable, fetch: Callable[[], T]) -> T:
        """Return `fetch()`, or the result of the call that is under way for `key`. Its error is raised to all of them.

        `fetch` must not call `run` for the same key: it would wait for itself.
        """
        with self._lock:
            flight = self._flights.get(key)
            if is_first := flight is None:
                flight = self._flights[key] = _Flight()
            else:
                self.shared += 1
        if is_first:
            self._fly(key, flight, fetch)
        flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        return flight.value

    def _fly(self, key: Hashable, flight: "_Flight[T]", fetch: Callable[[], T]) -> None:
        try:
            flight.value = fetch()
        except BaseException as error:
            flight.error = error
        finally:
            with self._lock:
                del self._flights[key]
            flight.landed.set()


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.value: T
        self.error: BaseException | None = None
