"""Who may call what: every route × everybody who might try, expected by `Route.access` and what is whose."""

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from backend.settings import Limit
from backend.web.handler import contract_of
from backend.web.router import Access, Route
from tests.every_route import API, VALID, World, allowed_caller, build_world, key_of, routes_of, send

METHODS = ("GET", "HEAD")
CALLERS = ("anonymous", "stranger", "owner", "admin", "deactivated", "forged")
IDS_OF_NOTHING = {"absent": "0198c0de-0000-7000-8000-000000000000", "not a UUID": "1%27--"}
CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}
# Routes without `{id}` whose body names something of the caller's own.
PAID_FROM_ONES_OWN_ACCOUNT = {f"POST {API}/transfers", f"POST {API}/orders"}
# An admin sees everything, but acts as nobody else.
NOT_EVEN_ADMINS = PAID_FROM_ONES_OWN_ACCOUNT | {f"DELETE {API}/auth/sessions/{{id}}"}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> World:
    return build_world(Path(shutil.copy(migrated, tmp_path_factory.mktemp("world"))))


@pytest.fixture
def database_path(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copy(world.path, tmp_path))


def refusal(route: Route, who: str) -> int | None:
    """The status with which `who` is refused what is the owner's; None if it succeeds."""
    if who in ("deactivated", "forged"):
        return 401
    if who == "anonymous":
        return None if route.access is Access.ANYONE else 401
    if who == "owner":
        return 403 if route.access is Access.ADMIN else None
    if who == "admin":
        return 404 if key_of(route) in NOT_EVEN_ADMINS else None
    if route.access in (Access.ADMIN, Access.SELF_OR_ADMIN):
        return 403
    owned = "{id}" in route.path or key_of(route) in PAID_FROM_ONES_OWN_ACCOUNT
    return 404 if owned and route.access is Access.USER else None


def refusal_without_thing(route: Route, who: str) -> int:
    """The same where `{id}` names nothing: rights go first, so who may not know learns nothing."""
    if who in ("deactivated", "forged"):
        return 401
    if who == "anonymous":
        return 404 if route.access is Access.ANYONE else 401
    return 403 if who != "admin" and route.access in (Access.ADMIN, Access.SELF_OR_ADMIN) else 404


@pytest.fixture
def commits(database_path: Path) -> Iterator[Callable[[], int]]:
    """A number that changes whenever anything has been written."""
    connection = sqlite3.connect(database_path)
    yield lambda: connection.execute("PRAGMA data_version").fetchone()[0]
    connection.close()


def test_every_route_has_a_valid_request_and_the_access_that_the_contract_gives_it(api):
    declared = {key: route.access for key, route in routes_of(api.app).items()}
    assert declared == {key: valid.access for key, valid in VALID.items()}, "each route needs a line in every_route.py"


@pytest.mark.parametrize("key", VALID)
def test_what_runs_bcrypt_or_mails_counts_under_auth_and_what_writes_under_default(
    make_api, world, commits, monkeypatch, key
):
    """A new route that checks or hashes a password fails here until a limit names it."""
    api, runs = make_api(rate_limit_default=Limit(9, 60), rate_limit_auth=Limit(9, 60)), []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(bcrypt, name, lambda *given, run=run: runs.append(given) or run(*given))
    before = commits()
    answer = send(api, world, key, allowed_caller(world, key))
    assert answer.status_code < 300
    policies = re.findall('"([a-z]+)"', answer.headers.get("RateLimit-Policy", ""))
    assert ("auth" in policies) == (bool(runs) or key == f"POST {API}/auth/password-reset")
    assert "default" in policies or (not runs and commits() == before)


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("key", VALID)
def test_a_route_serves_those_who_may_and_refuses_the_others(api, world, commits, key, who):
    """A refusal has the status of its kind and writes nothing."""
    route = routes_of(api.app)[key]
    refused = refusal(route, who)
    before = commits()
    answer = send(api, world, key, world.people.get(who))
    assert answer.status_code == (refused or contract_of(route).status), answer.text
    if refused:
        assert answer.json["error"]["code"] == CODES[refused]
        assert commits() == before


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("kind", IDS_OF_NOTHING)
def test_an_id_of_nothing_tells_nobody_more_than_his_rights(api, world, kind, who):
    """401 before 403 before 404: so another user is 403 whether he exists or not."""
    for key in VALID:
        if "{id}" in key:
            answer = send(api, world, key, world.people.get(who), id=IDS_OF_NOTHING[kind])
            assert (key, answer.status_code) == (key, refusal_without_thing(routes_of(api.app)[key], who))


@pytest.mark.parametrize("who", CALLERS)
def test_head_answers_as_get_without_the_body(api, world, who):
    """The same rights, the same status, the same headers with Content-Length."""
    headers = {"X-Request-ID": "the-same-id"}
    for key in VALID:
        if key.startswith("GET"):
            by = world.people.get(who)
            get, head = (send(api, world, key, by, method=method, headers=headers) for method in METHODS)
            assert (key, head.status_code, head.headers) == (key, get.status_code, get.headers)
            assert len(get.data) == int(head.headers["Content-Length"]) > 0
            assert head.data == b""


def test_both_sides_of_a_transfer_see_it(api, world):
    """The stranger of the matrix had no part in the owner's deposit, but was paid this one."""
    for who in ("owner", "stranger", "admin"):
        answer = send(api, world, f"GET {API}/transactions/{{id}}", world.people[who], id="$transfer")
        assert answer.status_code == 200, who
