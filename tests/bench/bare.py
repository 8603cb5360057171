"""The smallest WSGI function: the cost of a request to it is the cost of the server."""

from collections.abc import Callable, Iterable
from typing import Any

BODY = b'{"data":{}}'


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]
