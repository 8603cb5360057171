"""A small application for the tests of the gunicorn worker."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from backend.infrastructure.shutdown import shutting_down
from backend.web.router import ANYONE, Endpoint, Route, Router

BIG = b"x" * 5_000_000
STACKS = {"threads-off": 1 << 47, "threads-on": 0}  # bytes for each new thread: more than the system has; the default
released = threading.Event()
called: list[str] = []  # the paths that ran in a thread of the pool


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    what = path.rpartition("/")[2]
    if not path.startswith("/short"):
        called.append(path)
    if what[:1].isdigit():
        time.sleep(float(what))
    if what == "held":
        released.wait(60)
    if what == "release":
        released.set()
    if what in STACKS:
        threading.stack_size(STACKS[what])
    if what == "interrupts":
        raise KeyboardInterrupt("secret cause")
    if what == "fails":
        raise OSError("secret cause")
    values = {"pid": os.getpid(), "readyz": shutting_down.is_set(), "called": len(called)}
    answer = b"%d" % values[what] if what in values else BIG if what == "big" else body
    length = len(answer) + (what == "fails-late")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return fails_late(answer) if what == "fails-late" else [answer] if environ["REQUEST_METHOD"] != "HEAD" else []


def get_health() -> None:
    """Has the name of a handler that the worker runs on its loop."""


SHORT = ("/short", "/short/{id}")
application.router = Router(Endpoint(Route("GET", path, get_health, ANYONE), print) for path in SHORT)


def fails_late(answer: bytes) -> Iterator[bytes]:
    yield answer
    raise OSError("secret cause")
