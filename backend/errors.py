"""The error tree, with the status and code of each error. Services raise; the middleware renders.

AppError
├── BadRequest 400 ── MalformedJson
├── Unauthorized 401            details.reason: missing, invalid, expired, revoked, credentials
├── Forbidden 403
├── NotFound 404
├── MethodNotAllowed 405
├── RequestTimeout 408 · LengthRequired 411 · PayloadTooLarge 413 · UriTooLong 414
│   UnsupportedMediaType 415 · HeadersTooLarge 431
├── Conflict 409 ── OutOfStock
├── PreconditionFailed 412
├── ValidationFailed 422
│   InsufficientFunds · CurrencyMismatch · IdempotencyKeyReused 422
├── RateLimited 429
├── InternalError 500
└── Unavailable 503 ── Contention
"""

from collections.abc import Mapping
from itertools import islice
from typing import ClassVar

MAX_DETAILS = 50
MAX_NAME = 100  # characters


class AppError(Exception):
    """An error with an HTTP status and code. `message` and `details` are sent to the client: no secrets.

    At most 50 details are kept, each name cut to 100 characters: a client may have chosen both.
    """

    status = 500
    code = "INTERNAL_ERROR"
    message = "Something went wrong on our side."

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = message or type(self).message
        self.details = {name[:MAX_NAME]: error for name, error in islice((details or {}).items(), MAX_DETAILS)}
        self.headers = dict(headers or {})
        super().__init__(self.message)


class BadRequest(AppError):
    status, code, message = 400, "BAD_REQUEST", "The request could not be understood."


class MalformedJson(BadRequest):
    code, message = "MALFORMED_JSON", "The body is not valid JSON."


class Unauthorized(AppError):
    """`details.reason` is a key of `REASONS`. `WWW-Authenticate` follows RFC 6750, section 3."""

    status, code, message = 401, "UNAUTHORIZED", "Authentication is required."
    REASONS: ClassVar = {
        "missing": message,
        "credentials": "The credentials are wrong.",
        "invalid": "The token is invalid.",
        "expired": "The token has expired.",
        "revoked": "The session has ended.",
    }

    def __init__(self, reason: str, message: str = "") -> None:
        error = "" if reason in ("missing", "credentials") else f', error="invalid_token", error_description="{reason}"'
        auth_error = {"WWW-Authenticate": f'Bearer realm="api"{error}'}
        super().__init__(message or self.REASONS[reason], details={"reason": reason}, headers=auth_error)


class Forbidden(AppError):
    status, code, message = 403, "FORBIDDEN", "Forbidden."


class NotFound(AppError):
    status, code, message = 404, "NOT_FOUND", "Not found."


class MethodNotAllowed(AppError):
    status, code, message = 405, "METHOD_NOT_ALLOWED", "Method not allowed."

    def __init__(self, allow: str) -> None:
        super().__init__(headers={"Allow": allow})


class RequestTimeout(AppError):
    status, code, message = 408, "REQUEST_TIMEOUT", "The request did not arrive in time."


class Conflict(AppError):
    status, code, message = 409, "CONFLICT", "The request conflicts with the current state."


class OutOfStock(Conflict):
    code, message = "OUT_OF_STOCK", "Not enough stock."


class LengthRequired(AppError):
    status, code, message = 411, "LENGTH_REQUIRED", "Send a Content-Length, and no Transfer-Encoding."


class PreconditionFailed(AppError):
    status, code, message = 412, "PRECONDITION_FAILED", "The current version does not satisfy the preconditions."


class PayloadTooLarge(AppError):
    status, code, message = 413, "PAYLOAD_TOO_LARGE", "The body exceeds 64 KiB."


class UriTooLong(AppError):
    status, code, message = 414, "URI_TOO_LONG", "The request line exceeds 8190 bytes."


class UnsupportedMediaType(AppError):
    status, code, message = 415, "UNSUPPORTED_MEDIA_TYPE", "Send application/json in UTF-8, without a Content-Encoding."

    def __init__(self) -> None:
        super().__init__(headers={"Accept": "application/json"})


class ValidationFailed(AppError):
    """`details` has one entry for each invalid field; keys are paths such as `items[0].quantity`."""

    status, code, message = 422, "VALIDATION_ERROR", "Some fields are invalid."

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__(details=details)


class InsufficientFunds(AppError):
    status, code, message = 422, "INSUFFICIENT_FUNDS", "The balance is too low."


class CurrencyMismatch(AppError):
    status, code, message = 422, "CURRENCY_MISMATCH", "The currencies differ."


class IdempotencyKeyReused(AppError):
    status, code, message = 422, "IDEMPOTENCY_KEY_REUSED", "The Idempotency-Key was used for another request."


class RateLimited(AppError):
    status, code, message = 429, "RATE_LIMITED", "Too many requests."

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class HeadersTooLarge(AppError):
    status, code = 431, "HEADERS_TOO_LARGE"
    message = "The head exceeds 64 KiB, or 100 header lines, or 8190 bytes in one of them."


class InternalError(AppError):
    """An unexpected exception. The message is always the same; the log has the cause, under the request id."""


class Unavailable(AppError):
    """Overloaded or not ready. Nothing was written, unless the message says otherwise; retry after `Retry-After`."""

    status, code, message = 503, "SERVICE_UNAVAILABLE", "The service is temporarily unavailable."

    def __init__(
        self, message: str | None = None, *, details: Mapping[str, str] | None = None, retry_after: int = 1
    ) -> None:
        super().__init__(message, details=details, headers={"Retry-After": str(retry_after)})


class Contention(Unavailable):
    """Concurrent transactions were in each other's way, and this one was rolled back. Another run may succeed."""

    message = "Too many requests are changing the same data just now."
