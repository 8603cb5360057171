"""Access: every route × every kind of caller, with the result that `Route.access` and ownership demand."""

import re

import bcrypt
import pytest

from backend.settings import Limit
from backend.web.handler import contract_of
from backend.web.router import Access, Route
from tests.every_route import API, VALID, allowed_caller, key_of, routes_of, send

METHODS = ("GET", "HEAD")
CALLERS = ("anonymous", "stranger", "owner", "admin", "deactivated", "forged")
IDS_OF_NOTHING = {"absent": "0198c0de-0000-7000-8000-000000000000", "not a UUID": "1%27--"}
CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}
# Routes without `{id}` whose body names an account of the caller.
PAID_FROM_ONES_OWN_ACCOUNT = {f"POST {API}/transfers", f"POST {API}/orders"}
# An admin reads everything, but cannot act as another user.
NOT_EVEN_ADMINS = PAID_FROM_ONES_OWN_ACCOUNT | {f"DELETE {API}/auth/sessions/{{id}}"}


def refusal(route: Route, caller: str) -> int | None:
    """The status of the refusal if `caller` asks for what the owner owns; None if the request succeeds."""
    if caller in ("deactivated", "forged"):
        return 401
    if caller == "anonymous":
        return None if route.access is Access.ANYONE else 401
    if caller == "owner":
        return 403 if route.access is Access.ADMIN else None
    if caller == "admin":
        return 404 if key_of(route) in NOT_EVEN_ADMINS else None
    if route.access in (Access.ADMIN, Access.SELF_OR_ADMIN):
        return 403
    owned = "{id}" in route.path or key_of(route) in PAID_FROM_ONES_OWN_ACCOUNT
    return 404 if owned and route.access is Access.USER else None


def refusal_without_thing(route: Route, caller: str) -> int:
    """The same if `{id}` names nothing: rights are checked first, so a caller without them learns nothing."""
    if caller in ("deactivated", "forged"):
        return 401
    if caller == "anonymous":
        return 404 if route.access is Access.ANYONE else 401
    return 403 if caller != "admin" and route.access in (Access.ADMIN, Access.SELF_OR_ADMIN) else 404


def test_every_route_has_a_valid_request_and_the_access_that_the_contract_gives_it(api):
    declared = {key: route.access for key, route in routes_of(api.app).items()}
    assert declared == {key: valid.access for key, valid in VALID.items()}, "each route needs a line in every_route.py"


@pytest.mark.parametrize("key", VALID)
def test_what_runs_bcrypt_or_mails_counts_under_auth_and_what_writes_under_default(
    make_api, world, outsider, monkeypatch, key
):
    """A new route that checks or hashes a password fails here until a limit names it."""
    api, runs = make_api(rate_limit_default=Limit(9, 60), rate_limit_auth=Limit(9, 60)), []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(bcrypt, name, lambda *given, run=run: runs.append(given) or run(*given))
    before = outsider.version()
    answer = send(api, world, key, allowed_caller(world, key))
    assert answer.status_code < 300
    policies = re.findall('"([a-z]+)"', answer.headers.get("RateLimit-Policy", ""))
    assert ("auth" in policies) == (bool(runs) or key == f"POST {API}/auth/password-reset")
    assert "default" in policies or (not runs and outsider.version() == before)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("key", VALID)
def test_a_route_serves_the_callers_it_admits_and_refuses_all_others(api, world, outsider, key, caller):
    """A refusal has the status of its kind and writes nothing."""
    route = routes_of(api.app)[key]
    refused = refusal(route, caller)
    before = outsider.version()
    answer = send(api, world, key, world.people.get(caller))
    assert answer.status_code == (refused or contract_of(route).status), answer.text
    if refused:
        assert answer.json["error"]["code"] == CODES[refused]
        assert outsider.version() == before


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("kind", IDS_OF_NOTHING)
def test_an_absent_id_reveals_nothing_to_a_caller_without_rights(api, world, kind, caller):
    """401 before 403 before 404: so another user is 403, existing or not."""
    for key in VALID:
        if "{id}" in key:
            answer = send(api, world, key, world.people.get(caller), id=IDS_OF_NOTHING[kind])
            assert (key, answer.status_code) == (key, refusal_without_thing(routes_of(api.app)[key], caller))


@pytest.mark.parametrize("caller", CALLERS)
def test_head_answers_as_get_without_the_body(api, world, caller):
    """The same rights, the same status, the same headers with Content-Length."""
    headers = {"X-Request-ID": "the-same-id"}
    for key in VALID:
        if key.startswith("GET"):
            by = world.people.get(caller)
            get, head = (send(api, world, key, by, method=method, headers=headers) for method in METHODS)
            assert (key, head.status_code, head.headers) == (key, get.status_code, get.headers)
            assert len(get.data) == int(head.headers["Content-Length"]) > 0
            assert head.data == b""


def test_both_sides_of_a_transfer_see_it(api, world):
    """The stranger took no part in the owner's deposit, but received this transfer."""
    for caller in ("owner", "stranger", "admin"):
        answer = send(api, world, f"GET {API}/transactions/{{id}}", world.people[caller], id="$transfer")
        assert answer.status_code == 200, caller
