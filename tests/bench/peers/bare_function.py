"""The least that a WSGI server can be asked for: `GET /<number>` is answered with so many bytes."""

from collections.abc import Callable
from functools import cache
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = _body(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


@cache
def _body(path: str) -> bytes:
    return b"_" * int(path[1:])
