"""The log names the requests that hold the write lock for long.

SQLite has one writer at a time. A transaction that holds the lock for a second, since it waits for a stalled disk or
reads too much, stops all other writers, and the log shows only their 503s: every route that writes looks slow, the
cause like the victims. Here each transaction that holds the lock for LONG_SECONDS or more is one line at WARNING, with
the route and the id of its request; for a thread beside the requests, such as the relay's, with the thread's name.

Promised: the time is the transaction's own. In a group commit it ends when the transaction passes the lock on, and only
the transaction that commits for the group is charged with the COMMIT. Not promised: a line while the lock is still
held, or for another program that holds it.
"""

import logging
import threading

from backend.operations.in_flight import InFlight

# A writer without a waiting place of its own gives up after a tenth of BUSY_TIMEOUT_SECONDS, 0.5 s by default: from
# here on a holder makes others fail. A usual transaction takes one or two milliseconds.
LONG_SECONDS = 0.5

log = logging.getLogger(__name__)


class SlowWrites:
    """Logs the long holders. Thread-safe."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def log_if_long(self, waited: float, held: float) -> None:
        """A listener of `Database.on_write`, in seconds. Raises nothing."""
        if held >= LONG_SECONDS:
            log.warning("held the write lock for %.2f s: %s", held, self._holder())

    def _holder(self) -> str:
        """Method and route, or the name of a thread that answers no request."""
        request = self._in_flight.current()
        if request is None or request.endpoint is None:
            return f"thread {threading.current_thread().name}"
        return f"{request.method} {request.endpoint.route.path}"
