"""The prose of `/openapi.json` that cannot be derived from code: introduction, tags, headers and parameters."""

from typing import Any

from backend.web.cross_origin import EXPOSED

INTRODUCTION = f"""\
**Envelope.** Every JSON answer but this document is `{{"data": …, "meta": …}}` or `{{"error": …, "meta": …}}`; 204 and
304 have no body. Times are RFC 3339 in UTC, money is an integer in the currency's minor unit, ids are lowercase UUIDs.

**Methods.** HEAD answers like GET, without the body. OPTIONS answers 204 with `Allow`. Any other method is 405
`METHOD_NOT_ALLOWED` with `Allow`, any other path 404 `NOT_FOUND`: paths match exactly, slashes included.

**Bodies** are `application/json` in UTF-8 of at most 64 KiB, with a Content-Length. Unknown fields and unknown query
parameters are refused. Operations without a request body accept an empty one or `{{}}`.

**Heads** have at most 64 KiB, with a request line of at most 8190 bytes and at most 100 header lines of 8190 bytes.

**Authentication.** `Authorization: Bearer <accessToken>`. A bad token is refused with 401 on public operations too. A
write reads session, user and role again before it commits: if the right is gone, it is 401 or 403, and nothing is
written.

**Every response** carries `X-Request-ID`, `X-Content-Type-Options: nosniff`, a `Content-Security-Policy` and
`Cache-Control`: `private, no-cache` for a user by id, `no-cache` for products, which are public, `no-store` otherwise;
only the files of `/docs` may be kept longer.

**Mails.** A reset token is valid for 30 minutes; another request in that time sends the same token again, and the
response never reveals whether the address is a user's. A new password is announced by mail, a new e-mail address by
mail to the old one. A mailbox gets at most three mails of a kind an hour. A change of the caller's own e-mail
address takes `currentPassword` (missing: 422, wrong: 401 `credentials`), which other changes ignore.

**Limits.** Two policies count requests. `default` counts all requests, by user, or by address without a token. `auth`
counts login, sign-up, password reset and changes of the caller's password or e-mail, by address. By e-mail it also
counts resets and, separately, wrong passwords: a right password costs nothing, but once that count is full, it is
refused too. Wrong passwords from an address from which the user has logged in within 30 days count under that address
alone. Every counted response carries `RateLimit-Policy` and `RateLimit`; of several counts under one policy, those of
the count nearest its end. `/healthz`, `/readyz` and `/metrics` are not counted, nor are requests that the server
refuses itself (408, 411, 413, 414, 431, and 400 for the framing), which closes the connection.

**Retries.** After a 503, nothing was written, unless its message says otherwise. A request with an `Idempotency-Key`
may be repeated for 24 h: the first response is replayed, with `Idempotency-Replayed: true`; a failed attempt stores no
key.

**Lists** are newest first. A cursor is opaque and valid for its own list and filter; `Link` has the next page.

**CORS.** Scripts of configured origins may read these headers, on errors too: {EXPOSED}. Credentials are not sent.
"""

INFO = {
    "title": "Reference backend",
    "description": INTRODUCTION,
    "contact": {"name": "The developers of the reference backend"},
    "license": {"name": "MIT", "identifier": "MIT"},
}
TAGS = {
    "users": "Sign-up, profiles and user administration.",
    "auth": "Login, sessions, refresh tokens and passwords.",
    "products": "The catalogue: read by all, changed by admins.",
    "accounts": "Accounts, deposits, withdrawals, and the transactions of an account.",
    "transfers": "Money from one account to another.",
    "transactions": "Single transactions.",
    "orders": "Orders: placed, then cancelled or fulfilled.",
    "audit": "The audit log: actions with their actor and request.",
    "service": "The service itself: health, readiness, this document.",
    "docs": "The page that shows this document, and its files.",
}

TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 1}


def _header(description: str, schema: dict[str, Any] = TEXT) -> dict[str, Any]:
    return {"description": description, "schema": schema}


HEADERS = {
    "X-Request-ID": _header("The id of this request, the same as `meta.requestId`."),
    "ETag": _header('The version in quotes, such as `"3"`.'),
    "Location": _header("The path of the created resource."),
    "Link": _header("RFC 8288: `next`, and `first`, `prev`, `last` of lists with pages; absent if there are none."),
    "Idempotency-Replayed": _header(
        "Present if this is the replayed response of an earlier attempt.", {"const": "true"}
    ),
    "RateLimit-Policy": _header('draft-ietf-httpapi-ratelimit-headers, such as `"default";q=300;w=60`.'),
    "RateLimit": _header('draft-ietf-httpapi-ratelimit-headers, such as `"default";r=299;t=1`.'),
    "Retry-After": _header("Seconds to wait.", WHOLE),
    "WWW-Authenticate": _header("RFC 6750: `Bearer realm=…`, with an `error` if a bad token was sent."),
    "Accept": _header("The accepted media type."),
}


def _parameter(name: str, place: str, description: str, **schema: Any) -> dict[str, Any]:
    parameter = {"name": name, "in": place, "description": description, "schema": TEXT | schema}
    return {**parameter, "required": True} if place == "path" else parameter


ALL = [
    _parameter("id", "path", "Anything that is not a UUID is 404.", format="uuid"),
    _parameter("X-Request-ID", "header", "Kept if it is 8 to 64 of `A-Z a-z 0-9 . _ -`, else replaced."),
    _parameter("Idempotency-Key", "header", "Makes the request safe to repeat.", pattern=r"^[!-+\--~]{1,255}$"),
    _parameter("If-Match", "header", "The versions that may be changed; a weak tag never matches."),
    _parameter("If-None-Match", "header", "The versions that the client has (304), or that must not be changed (412)."),
]
PARAMETERS = {parameter["name"]: parameter for parameter in ALL}
