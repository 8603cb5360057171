"""One HTTP response: status, body, a list of headers. Plainer than Werkzeug's, whose headers take a microsecond."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

JSON = "application/json"
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Response:
    """A WSGI application that answers once. `cache_control` is the header of that name."""

    __slots__ = ("body", "cache_control", "headers", "status")

    def __init__(
        self, status: int, body: bytes = b"", content_type: str = JSON, cache_control: str = "no-store"
    ) -> None:
        self.status = status
        self.body = body
        self.cache_control = cache_control
        self.headers: list[tuple[str, str]] = []
        if status not in (204, 304):  # they have no body, so nothing describes it
            self.headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(STATUS_LINES[self.status], [*self.headers, ("Cache-Control", self.cache_control)])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]
