"""Whether this process has been told to stop. The worker sets it on SIGTERM; `/readyz` answers 503 from then on."""

import threading

from backend.errors import Unavailable

shutting_down = threading.Event()  # process-wide because the signal is; set once, never cleared


def check_not_shutting_down() -> None:
    """Raises Unavailable."""
    if shutting_down.is_set():
        raise Unavailable("This worker has been told to stop.")
