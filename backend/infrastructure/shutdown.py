"""Whether this process has been told to stop. Production's worker sets it on SIGTERM; from then on `/readyz` is 503."""

import threading

from backend.errors import Unavailable

shutting_down = threading.Event()  # process-wide because the signal is; set once, never cleared


def check_not_shutting_down() -> None:
    """Raises Unavailable."""
    if shutting_down.is_set():
        raise Unavailable("This worker has been told to stop.")
