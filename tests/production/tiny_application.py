"""An application of a few lines, behind which the tests look at our gunicorn worker alone."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from backend.infrastructure.shutdown import shutting_down
from backend.web.router import Lane

BIG = b"x" * 5_000_000


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    if path.startswith(("/sleep/", "/short/")):
        time.sleep(float(path[7:]))
    if path == "/interrupts":
        raise KeyboardInterrupt
    if path == "/fails":
        raise OSError("secret cause")
    answer = {"/big": BIG, "/pid": b"%d" % os.getpid(), "/readyz": b"%d" % shutting_down.is_set()}.get(path, body)
    length = len(answer) + (path == "/fails-late")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return fails_late(answer) if path == "/fails-late" else [answer] if environ["REQUEST_METHOD"] != "HEAD" else []


application.lane_of = lambda method, target: Lane.LOOP if target.startswith("/short") else Lane.POOL


def fails_late(answer: bytes) -> Iterator[bytes]:
    yield answer
    raise OSError("secret cause")
