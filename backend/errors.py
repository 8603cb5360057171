"""The error tree. Status and code stand here, once; a service raises, the error middleware answers.

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
└── Unavailable 503
"""

from collections.abc import Mapping
from itertools import islice
from typing import ClassVar

MAX_DETAILS = 50
NAME_SHOWN = 100  # characters


class AppError(Exception):
    """A refusal with an HTTP-ready status and code. `message` and `details` are shown to the client: no secrets.

    The first 50 details are kept, each under the first 100 characters of its name: a client may have chosen it.
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
        self.details = {name[:NAME_SHOWN]: problem for name, problem in islice((details or {}).items(), MAX_DETAILS)}
        self.headers = dict(headers or {})
        super().__init__(self.message)


class BadRequest(AppError):
    status, code, message = 400, "BAD_REQUEST", "The request could not be understood."


class MalformedJson(BadRequest):
    code, message = "MALFORMED_JSON", "The body is not the JSON it should be."


class Unauthorized(AppError):
    """`details.reason` is a key of `REASONS`. The challenge is RFC 6750, section 3."""

    status, code, message = 401, "UNAUTHORIZED", "Authentication is required."
    REASONS: ClassVar = {
        "missing": message,
        "credentials": "The credentials are wrong.",
        "invalid": "The token is invalid.",
        "expired": "The token has expired.",
        "revoked": "The login has ended.",
    }

    def __init__(self, reason: str, message: str = "") -> None:
        error = "" if reason in ("missing", "credentials") else f', error="invalid_token", error_description="{reason}"'
        auth_error = {"WWW-Authenticate": f'Bearer realm="api"{error}'}
        super().__init__(message or self.REASONS[reason], details={"reason": reason}, headers=auth_error)


class Forbidden(AppError):
    status, code, message = 403, "FORBIDDEN", "This is not allowed to you."


class NotFound(AppError):
    status, code, message = 404, "NOT_FOUND", "There is nothing here."


class MethodNotAllowed(AppError):
    status, code, message = 405, "METHOD_NOT_ALLOWED", "The method is not allowed here."

    def __init__(self, allow: str) -> None:
        super().__init__(headers={"Allow": allow})


class RequestTimeout(AppError):
    status, code, message = 408, "REQUEST_TIMEOUT", "The request did not arrive in time."


class Conflict(AppError):
    status, code, message = 409, "CONFLICT", "The request does not fit the present state."


class OutOfStock(Conflict):
    code, message = "OUT_OF_STOCK", "There is not enough in stock."


class LengthRequired(AppError):
    status, code, message = 411, "LENGTH_REQUIRED", "Send a Content-Length; no Transfer-Encoding is accepted."


class PreconditionFailed(AppError):
    status, code, message = 412, "PRECONDITION_FAILED", "The version is not one that the preconditions allow."


class PayloadTooLarge(AppError):
    status, code, message = 413, "PAYLOAD_TOO_LARGE", "A body may have 64 KiB."


class UriTooLong(AppError):
    status, code, message = 414, "URI_TOO_LONG", "A request line may have 8190 bytes."


class UnsupportedMediaType(AppError):
    status, code, message = 415, "UNSUPPORTED_MEDIA_TYPE", "Send application/json in UTF-8, without a Content-Encoding."

    def __init__(self) -> None:
        super().__init__(headers={"Accept": "application/json"})


class ValidationFailed(AppError):
    """`details` has one entry for each wrong field; keys are paths such as `items[0].quantity`."""

    status, code, message = 422, "VALIDATION_ERROR", "Some fields are wrong."

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__(details=details)


class InsufficientFunds(AppError):
    status, code, message = 422, "INSUFFICIENT_FUNDS", "The account does not hold enough."


class CurrencyMismatch(AppError):
    status, code, message = 422, "CURRENCY_MISMATCH", "The currencies differ."


class IdempotencyKeyReused(AppError):
    status, code, message = 422, "IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was used for another request."


class RateLimited(AppError):
    status, code, message = 429, "RATE_LIMITED", "Too many requests."

    def __init__(self, retry_after: int) -> None:
        super().__init__(headers={"Retry-After": str(retry_after)})


class HeadersTooLarge(AppError):
    status, code = 431, "HEADERS_TOO_LARGE"
    message = "A head may have 64 KiB in all, and 100 header lines of 8190 bytes each."


class InternalError(AppError):
    """The answer to everything unforeseen. Its message never varies; the cause is in the log, under the request id."""


class Unavailable(AppError):
    """Nothing was written; the same request may be sent again after `Retry-After` seconds."""

    status, code, message = 503, "SERVICE_UNAVAILABLE", "The service cannot do this just now."

    def __init__(
        self, message: str | None = None, *, details: Mapping[str, str] | None = None, retry_after: int = 1
    ) -> None:
        super().__init__(message, details=details, headers={"Retry-After": str(retry_after)})
