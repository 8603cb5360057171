"""The words of `/openapi.json` that no code can tell: the introduction, tags, headers and parameters."""

from typing import Any

from backend.web.cross_origin import EXPOSED

INTRODUCTION = f"""\
**Envelope.** Every JSON answer but this document is `{{"data": …, "meta": …}}` or `{{"error": …, "meta": …}}`; 204 and
304 have no body. Times are RFC 3339 in UTC, money is an integer in the currency's minor unit, ids are lowercase UUIDs.

**Methods.** HEAD answers as GET, without the body. OPTIONS answers 204 with `Allow`. Any other method is 405
`METHOD_NOT_ALLOWED` with `Allow`, any other path 404 `NOT_FOUND`: paths match exactly, slashes included.

**Bodies** are `application/json` in UTF-8 of at most 64 KiB, with a Content-Length. Unknown fields and unknown query
parameters are refused. Operations without a request body take an empty one or `{{}}`.

**Heads** have at most 64 KiB: a request line of at most 8190 bytes and at most 100 header lines of as many.

**Authentication.** `Authorization: Bearer <accessToken>`. A bad token is refused with 401 on public operations too.
A write needs login, activity and role still when it is committed: one lost meanwhile is 401 or 403, nothing written.

**Every answer** carries `X-Request-ID`, `X-Content-Type-Options: nosniff` and `Cache-Control`: `no-store`, but
`private, no-cache` for a user by id, and `no-cache` for products, which are public.

**Mails.** A reset token is good for 30 minutes; asked for again in that time, the same one goes out again, and the
answer never tells whether the address is a user's. Each new password is told by mail, each new e-mail address to the
old one. A mailbox gets at most three mails of a kind an hour. One's own e-mail address changes only with
`currentPassword` (missing: 422, wrong: 401 `credentials`); with no such change it is ignored.

**Limits.** Two policies count requests. `default` counts all by user, or by address without a token. `auth` counts
login, sign-up, password reset and the change of one's own password or e-mail by address; for each e-mail it also
counts resets, and apart from them wrong passwords: a right one costs nothing, but once that count is full, all are
refused. Wrong passwords from an address that the user has logged in from within 30 days count under that address
alone. Every answer that was counted carries `RateLimit-Policy` and `RateLimit`, of several counts under one policy the
one nearer its end. The service's own `/healthz` and `/readyz` are not counted, nor is what the server refuses before
(408, 411, 413, 414, 431 and 400 for the framing), which ends the connection.

**Repeating.** 503 says that nothing was written. With an `Idempotency-Key` any attempt may be repeated for 24 h: the
first answer is given again, with `Idempotency-Replayed: true`; a failed attempt leaves no key behind.

**Lists** are newest first. Cursors are opaque and good for the list and filter they came from; `Link` has the way on.

**CORS.** Scripts of configured origins may read these headers, on errors too: {EXPOSED}. Credentials are not sent.
"""

INFO = {
    "title": "Reference backend",
    "description": INTRODUCTION,
    "contact": {"name": "The developers of the reference backend"},
    "license": {"name": "MIT", "identifier": "MIT"},
}
TAGS = {
    "users": "Sign-up, profiles and their administration.",
    "auth": "Logins, sessions, refresh tokens and passwords.",
    "products": "The catalogue: public to read, kept by admins.",
    "accounts": "Accounts, deposits and withdrawals, and the transactions of one account.",
    "transfers": "Money from one account to another.",
    "transactions": "Single movements of money.",
    "orders": "Orders: placed, then cancelled or fulfilled.",
    "audit": "What was done, by which user, in which request.",
    "service": "The service itself: health, readiness, this document.",
}

TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 1}


def _header(description: str, schema: dict[str, Any] = TEXT) -> dict[str, Any]:
    return {"description": description, "schema": schema}


HEADERS = {
    "X-Request-ID": _header("The id of this request, the same as `meta.requestId`."),
    "ETag": _header('The version in quotes, such as `"3"`.'),
    "Location": _header("The path of what was made."),
    "Link": _header("RFC 8288: `next`, and `first`, `prev`, `last` of lists with pages; absent if there are none."),
    "Idempotency-Replayed": _header("Present if this is the answer of an earlier attempt.", {"const": "true"}),
    "RateLimit-Policy": _header('draft-ietf-httpapi-ratelimit-headers, such as `"default";q=300;w=60`.'),
    "RateLimit": _header('draft-ietf-httpapi-ratelimit-headers, such as `"default";r=299;t=1`.'),
    "Retry-After": _header("Seconds to wait.", WHOLE),
    "WWW-Authenticate": _header("RFC 6750: `Bearer realm=…`, with an `error` if a token was sent."),
    "Accept": _header("What would have been understood."),
}


def _parameter(name: str, place: str, description: str, **schema: Any) -> dict[str, Any]:
    found = {"name": name, "in": place, "description": description, "schema": TEXT | schema}
    return {**found, "required": True} if place == "path" else found


ALL = [
    _parameter("id", "path", "Anything that is not a UUID is 404.", format="uuid"),
    _parameter("X-Request-ID", "header", "Kept if it is 8 to 64 of `A-Z a-z 0-9 . _ -`, else replaced."),
    _parameter("Idempotency-Key", "header", "Makes the request safe to repeat.", pattern=r"^[!-+\--~]{1,255}$"),
    _parameter("If-Match", "header", "The versions that may be changed; weak tags never match."),
    _parameter("If-None-Match", "header", "The versions that are known (304) or must not be changed (412)."),
]
PARAMETERS = {parameter["name"]: parameter for parameter in ALL}
