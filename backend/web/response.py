"""HTTP responses, and the envelope around every JSON body: `{"data": …, "meta": …}` or `{"error": …, "meta": …}`."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from backend.errors import AppError
from backend.infrastructure.json_encoder import to_json
from backend.infrastructure.timestamps import iso_now

JSON = "application/json"
DATA_ONLY = "default-src 'none'; frame-ancestors 'none'"  # a Content-Security-Policy: no script runs, no page frames it
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
BODILESS = (204, 304)


class Response:
    """Status, body and a list of headers; as a WSGI application, it answers with them."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = JSON,
        cache_control: str = "no-store",
        content_policy: str = DATA_ONLY,
    ) -> None:
        self.status = status
        self.body = body
        self.cache_control = cache_control
        self.content_policy = content_policy
        self.headers: list[tuple[str, str]] = []
        if status not in BODILESS:
            self.headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]

    def all_headers(self) -> list[tuple[str, str]]:
        """`headers`, and those that every response has."""
        return [
            *self.headers,
            ("Cache-Control", self.cache_control),
            ("Content-Security-Policy", self.content_policy),
            ("X-Content-Type-Options", "nosniff"),
        ]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(STATUS_LINES[self.status], self.all_headers())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def envelope(name: str, content: Any, request_id: str, **meta: Any) -> dict[str, Any]:
    """`content` under `name`, which is `data` or `error`, beside the metadata that every body has."""
    return {name: content, "meta": {"requestId": request_id, "timestamp": iso_now(), **meta}}


def error_response(error: AppError, request_id: str) -> Response:
    """The error's status, code, message, details and headers."""
    details = {"details": error.details} if error.details else {}
    content = {"code": error.code, "message": error.message, **details}
    response = Response(error.status, to_json(envelope("error", content, request_id)).encode())
    response.headers += error.headers.items()
    return response
