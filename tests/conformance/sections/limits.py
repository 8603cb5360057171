"""Limits: what a limited answer says, and that a limit holds. The last section, for it uses a limit up."""

import re
import time

from tests.conformance.checks import Broken, check, expect, expect_data, expect_error
from tests.conformance.client import Answer, Client, Skipped

POLICY = re.compile(r'"(\w+)";q=(\d+);w=(\d+)')
STATE = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')
MOST = 400  # requests that are sent to use a limit up


def policies(answer: Answer) -> dict[str, tuple[int, int]]:
    """Quota and window of each policy that counted the request. Raises Skipped if none did."""
    found = POLICY.findall(answer.headers.get("RateLimit-Policy", ""))
    if not found:
        raise Skipped("limits are off")
    return {name: (int(quota), int(window)) for name, quota, window in found}


@check
def an_answer_tells_its_limit(api: Client) -> None:
    """Every answer that was counted carries `RateLimit-Policy: "default";q=300;w=60` and
    `RateLimit: "default";r=299;t=1`."""
    answer = api.get("/users/me", api.ada)
    quota, window = policies(answer)["default"]
    [(name, remaining, reset)] = STATE.findall(answer.headers.get("RateLimit", "")) or [("", "0", "0")]
    expect("the policy of the state", "default", name)
    expect("0 ≤ r < q and 0 < t ≤ w", True, 0 <= int(remaining) < quota and 0 < int(reset) <= window)


@check
def a_login_counts_twice(api: Client) -> None:
    """Where both policies count, both are listed."""
    policies(api.get("//nothing"))
    expect("policies of a login", {"default", "auth"}, set(policies(api.post("/auth/login", json_={}))))


@check
def what_is_not_there_counts_too(api: Client) -> None:
    """404 and 405 count too; `/healthz` and `/readyz` are not limited."""
    for answer in (api.get("//nothing"), api("PUT", "/products")):
        policies(answer)
    for path in ("//healthz", "//readyz"):
        expect(f"{path}: RateLimit", None, api.get(path).headers.get("RateLimit"))


@check
def a_limit_holds(api: Client) -> None:
    """A client gets its quota and no more, whatever it writes into `X-Forwarded-For`; then 429 with `Retry-After`."""
    quota, window = policies(api.post("/auth/login", json_={}))["auth"]
    began, passed = time.monotonic(), 0
    while passed < MOST:
        address = {"X-Forwarded-For": f"203.0.113.{passed % 250}"}
        answer = api.post("/auth/login", json_={}, headers=address, patient=False)
        if answer.status == 429:
            break
        passed += 1
        most = quota + (time.monotonic() - began) * quota / window + 1
        if passed > most:
            raise Broken("POST /auth/login", f"429 after {most:.0f} requests", f"{passed} were let through")
    else:
        raise Skipped(f"{MOST} requests do not use the limit up")
    expect_error(answer, 429, "RATE_LIMITED")
    expect("Retry-After is a number of seconds ≥ 1", True, answer.headers.get("Retry-After", "").strip("0").isdigit())
    expect_data(api.get("/users/me", api.ada))
