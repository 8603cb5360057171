"""What of gunicorn's code our worker builds on, beyond what gunicorn documents; looked at before the start."""

from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import gunicorn
from gunicorn.workers.gthread import ThreadWorker

TRIED_ON = "26.1.0, 26.2.0, 27.0.0 and 27.0.1"

# a function, and the names it must still use
INTERNALS: dict[Callable[..., Any], set[str]] = {
    ThreadWorker.run: {"alive", "set_accept_enabled", "nr_conns", "worker_connections", "murder_pending"}
    | {"wait_for_and_dispatch_events", "is_parent_alive"},
    ThreadWorker.set_accept_enabled: {"sockets", "poller", "register", "accept", "_accepting"},
    ThreadWorker.wait_for_and_dispatch_events: {"poller", "select", "data", "fileobj"},
    ThreadWorker.enqueue_req: {"tpool", "submit", "method_queue", "defer", "add_done_callback"},
    ThreadWorker.handle_request: {"nr", "max_requests", "alive", "wsgi"},
}


def require_internals() -> None:
    """RuntimeError, in one line, if this gunicorn is built otherwise."""
    for function, names in INTERNALS.items():
        if moved := names - set(names_in(function.__code__)):
            raise RuntimeError(
                f"gunicorn {gunicorn.__version__} has no {', '.join(sorted(moved))} in {function.__qualname__}, "
                f"which backend/production/gunicorn_worker.py builds on; it was tried on {TRIED_ON}"
            )


def names_in(code: CodeType) -> Iterator[str]:
    """Every name that a function uses, the functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
