"""The lanes of requests: on the loop's thread, in the pool, or in the pool for bcrypt."""

import bcrypt
import pytest

from backend.production import lanes
from backend.production.lanes import INLINE, PASSWORDS, PROBES, Lane, lane_of
from backend.web.router import ANYONE, Access, Endpoint, Route, Router
from tests.every_route import VALID, routes_of, send

LOOP, POOL, *_ = Lane
VALID_ID = "0192f3c4-5b6a-7c8d-9e0f-a1b2c3d4e5f6"


def get_product():
    """Has the name of an inline handler."""


THINGS = Router([Endpoint(Route("GET", "/things", get_product, ANYONE), print)])


@pytest.mark.parametrize(
    ("query", "lane"),
    [("", LOOP), ("?", LOOP), ("?limit=20", LOOP), ("?limit=7&status=placed", LOOP), ("?cursor=a-b_c&limit=19", LOOP),
     ("?limit=21", POOL), ("?limit=100", POOL), ("?status=placed&limit=0100", POOL), ("?limit=20&limit=100", POOL),
     ("?%6cimit=100", POOL), ("?limit=1%300", POOL)],
)  # fmt: skip
def test_a_list_runs_inline_unless_it_may_be_longer_than_its_default(query, lane):
    assert lane_of(THINGS, "GET", f"/things{query}") is lane


@pytest.mark.parametrize(
    "target",
    ["/api/v1/auth/login", "/api/v1/auth/%6Cogin", "/%61pi/v1/auth%2Flogin", "http://localhost/api/v1/auth/login",
     "/api/v1/auth/login#top", "/api/v1/auth/login?limit=100"],
)  # fmt: skip
def test_a_login_waits_for_bcrypt_apart_in_whatever_form_its_target_is_written(api, target):
    assert lane_of(api.app.router, "POST", target) is Lane.PASSWORDS


@pytest.mark.parametrize(
    ("target", "lane"),
    [("/th%69ngs", LOOP), ("http://host/things?limit=20", LOOP), ("http://host/things?limit=100", POOL),
     ("/th%69ngs?limit=100", POOL), ("/things%3Flimit=100", POOL), ("/things/", POOL), ("//things", POOL),
     ("/things?limit=20&limit=100#limit=20", POOL), ("/things?limit=+100", POOL)],
)  # fmt: skip
def test_no_form_of_a_target_gets_a_long_list_onto_the_loop(target, lane):
    assert lane_of(THINGS, "GET", target) is lane


def test_the_lane_of_each_route_is_the_same_if_every_character_is_encoded(api):
    for key, route in routes_of(api.app).items():
        path = route.path.replace("{id}", VALID_ID)
        encoded = "".join(f"%{ord(character):02X}" for character in path[1:])
        assert lane_of(api.app.router, route.method, f"/{encoded}") is lane_of(api.app.router, route.method, path), key


def test_a_path_that_is_too_long_for_a_resource_is_not_decoded_on_the_loop(monkeypatch):
    decoded = []
    monkeypatch.setattr(lanes, "path_info", decoded.append)
    assert lane_of(THINGS, "GET", f"/{'%' * 8000}?limit=20") is POOL
    assert decoded == []


def test_a_head_runs_where_its_get_does_and_a_request_without_a_route_in_the_pool():
    asked = [("GET", "/things"), ("HEAD", "/things"), ("POST", "/things"), ("GET", "/nowhere")]
    assert [lane_of(THINGS, *what) for what in asked] == [LOOP, LOOP, POOL, POOL]


def test_every_name_in_a_lane_is_a_handlers(api):
    assert {route.handler.__name__ for route in api.app.routes} >= INLINE | PASSWORDS | PROBES


def test_an_inline_route_takes_no_lock_and_hashes_no_password(api, world, monkeypatch):
    """It runs on the thread that serves all clients of the worker."""
    monkeypatch.setattr(api.app.database, "transaction", None)
    monkeypatch.setattr(bcrypt, "checkpw", None)
    for key, route in routes_of(api.app).items():
        if route.handler.__name__ in INLINE:
            assert send(api, world, key, world.people["owner"]).status_code == 200


@pytest.mark.parametrize("key", VALID)
def test_exactly_the_routes_that_run_bcrypt_are_in_the_password_lane(api, world, key, monkeypatch):
    """A new route that checks or hashes a password fails here until PASSWORDS names its handler."""
    runs = []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(bcrypt, name, lambda *given, run=run: runs.append(given) or run(*given))
    route = routes_of(api.app)[key]
    by = world.people["admin" if route.access is Access.ADMIN else "owner"]
    assert send(api, world, key, by).status_code < 300
    assert (lane_of(api.app.router, route.method, route.path) is Lane.PASSWORDS) == bool(runs)
