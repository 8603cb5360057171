"""The least that can answer, a WSGI function that does nothing else: what a request costs with it is the server's."""

from collections.abc import Callable, Iterable
from typing import Any

BODY = b'{"data":{}}'


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]
