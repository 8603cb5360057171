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
from contextvars import ContextVar

from backend.web.middleware import Handle
from backend.web.request import Request
from backend.web.response import Response

# A writer without a waiting place of its own gives up after a tenth of BUSY_TIMEOUT_SECONDS, 0.5 s by default: from
# here on a holder makes others fail. A usual transaction takes one or two milliseconds.
LONG_SECONDS = 0.5

log = logging.getLogger(__name__)

current: ContextVar[Request | None] = ContextVar("current", default=None)  # the thread's request, for the log only


def current_request(next_handler: Handle) -> Handle:
    """Remember the request while its thread works for it."""

    def handle(request: Request) -> Response:
        token = current.set(request)
        try:
            return next_handler(request)
        finally:
            current.reset(token)

    return handle


def log_long_write(waited: float, held: float) -> None:
    """A listener of `Database.on_write`, in seconds. Raises nothing."""
    if held >= LONG_SECONDS:
        log.warning("held the write lock for %.2f s: %s", held, _holder())


def _holder() -> str:
    """Method and route, or the name of a thread that works for no request."""
    request = current.get()
    if request is None or request.endpoint is None:
        return f"thread {threading.current_thread().name}"
    return f"{request.method} {request.endpoint.route.path}"
