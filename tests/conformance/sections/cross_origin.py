"""Cross-origin requests: only the origins of the settings are let in."""

from tests.conformance.checks import check, expect, expect_header
from tests.conformance.client import Client, Skipped

STRANGE = "https://conformance.invalid"
ASKED = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization, content-type"}
EXPOSED = {"Link", "Location", "ETag", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID",
           "Idempotency-Replayed"}  # fmt: skip


def names(header: str | None) -> set[str]:
    return {name.strip().lower() for name in (header or "").split(",")}


def origin_of(api: Client) -> str:
    if not api.origin:
        raise Skipped("needs --origin, an origin of the server's CORS settings")
    return api.origin


@check
def another_origin_is_not_let_in(api: Client) -> None:
    """An origin that is not in the settings gets no CORS header, on answers, errors and preflights."""
    for answer in (
        api.get("/products", headers={"Origin": STRANGE}),
        api.get("/users/me", headers={"Origin": STRANGE}),
        api("OPTIONS", "/users/me", headers={"Origin": STRANGE} | ASKED),
    ):
        expect_header(answer, "Access-Control-Allow-Origin", None)


@check
def a_known_origin_is_let_in(api: Client) -> None:
    """A known origin is named on answers and on errors, without credentials."""
    headers = {"Origin": origin_of(api)}
    for answer in (api.get("/products", headers=headers), api.get("/users/me", headers=headers)):
        expect_header(answer, "Access-Control-Allow-Origin", api.origin)
        expect_header(answer, "Access-Control-Allow-Credentials", None)
        missing = {name.lower() for name in EXPOSED} - names(answer.headers.get("Access-Control-Expose-Headers"))
        expect("headers that are not exposed", set(), missing)


@check
def a_preflight(api: Client) -> None:
    """A preflight is good for 600 s and names method and headers."""
    answer = api("OPTIONS", "/users/me", headers={"Origin": origin_of(api)} | ASKED)
    expect_header(answer, "Access-Control-Max-Age", "600")
    expect("PATCH", True, "patch" in names(answer.headers.get("Access-Control-Allow-Methods")))
    missing = {"authorization", "content-type"} - names(answer.headers.get("Access-Control-Allow-Headers"))
    expect("headers that are not allowed", set(), missing)


@check
def caches_keep_origins_apart(api: Client) -> None:
    """An answer to a known origin varies by `Origin`."""
    answer = api.get("/products", headers={"Origin": origin_of(api)})
    expect("Origin is in Vary", True, "origin" in names(answer.headers.get("Vary")))
