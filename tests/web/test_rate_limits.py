"""Rate limits: which requests count under which policy, and what a refused one costs."""

from dataclasses import replace

import bcrypt
import pytest

from backend.settings import Limit, Networks, Settings
from tests.at_once import at_once
from tests.conftest import PASSWORD, Api
from tests.wirings import limiter_class, make_app

LOGIN = {"email": "ada@example.com", "password": "wrong"}
AUTH_ROUTES = {
    "/auth/login": LOGIN,
    "/users": {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"},
    "/auth/password-reset": {"email": "ada@example.com"},
    "/auth/password-reset/confirm": {"token": "none", "newPassword": PASSWORD},
    "/auth/password": {"currentPassword": PASSWORD, "newPassword": "another good one"},
}


class Ticks:
    """A monotonic clock in nanoseconds that only `advance` moves."""

    def __init__(self):
        self.now = 10**15

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * 10**9)


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def limited(settings, clock, ticks, wiring):
    """Applications that share one limiter: `limited(default=Limit(…), auth=Limit(…))`; a policy not named is off."""
    limiter, made = limiter_class(wiring)(capacity=1024, clock=ticks), []

    def make(default=None, auth=None, **changes):
        changes |= {"rate_limit_default": default, "rate_limit_auth": auth}
        made.append(make_app(replace(settings, **changes), clock, wiring=wiring, limiter=limiter))
        return Api(made[-1])

    yield make
    for app in made:
        app.close()


@pytest.fixture
def bcrypt_runs(api, ada, monkeypatch):
    """The arguments of each bcrypt run from here on."""
    runs = []
    for name in ("hashpw", "checkpw"):
        real = getattr(bcrypt, name)
        monkeypatch.setattr(bcrypt, name, lambda *given, real=real: runs.append(given) or real(*given))
    return runs


def state(answer):
    return answer.headers.getlist("RateLimit-Policy"), answer.headers.getlist("RateLimit")


def status(answer):
    return answer.status_code


def refused(answer):
    return (answer.status_code, answer.json["error"]["code"]) == (429, "RATE_LIMITED")


def test_the_headers_are_those_of_the_draft(limited):
    """The quota and its window, what remains, and in how many whole seconds all of it is back."""
    api = limited(Limit(300, 60))
    assert state(api.get("/products")) == (['"default";q=300;w=60'], ['"default";r=299;t=1'])
    for _ in range(9):
        answer = api.get("/products")
    assert state(answer) == (['"default";q=300;w=60'], ['"default";r=290;t=2'])


def test_past_the_limit_requests_are_refused_until_there_is_room_again(limited, ticks):
    """`Retry-After` is in whole seconds, at least 1; after that time a request passes."""
    api = limited(Limit(3, 60))
    assert [state(api.get("/products"))[1] for _ in range(3)] == [
        ['"default";r=2;t=20'], ['"default";r=1;t=40'], ['"default";r=0;t=60'],
    ]  # fmt: skip
    answer = api.get("/products")
    assert refused(answer)
    assert (answer.headers["Retry-After"], state(answer)[1]) == ("20", ['"default";r=0;t=60'])
    ticks.advance(19.999)
    answer = api.get("/products")
    assert (status(answer), answer.headers["Retry-After"]) == (429, "1")
    ticks.advance(1)
    assert [status(api.get("/products")) for _ in range(2)] == [200, 429]
    ticks.advance(60)
    assert [status(api.get("/products")) for _ in range(4)] == [200, 200, 200, 429]


def test_refused_requests_are_not_counted(limited, ticks):
    """A client that keeps sending requests does not have to wait longer."""
    api = limited(Limit(1, 60))
    assert [status(api.get("/products")) for _ in range(50)] == [200] + [429] * 49
    ticks.advance(60)
    assert status(api.get("/products")) == 200


COUNTED = [
    ("GET", "/users/me", {}, 200),
    ("HEAD", "/users/me", {}, 200),
    ("GET", "/users/{ada}", {"headers": {"If-None-Match": "*"}}, 304),
    ("OPTIONS", "/users/me", {}, 204),
    ("PATCH", "/users/me", {"json": {}}, 200),
    ("PATCH", "/users/me", {"json": {}, "headers": {"If-Match": '"9"'}}, 412),
    ("GET", "/nowhere", {}, 404),
    ("PUT", "/products", {}, 405),
    ("GET", "/users", {}, 403),
    ("GET", "/products/x", {}, 404),
    ("GET", "/products?limit=0", {}, 422),
    ("POST", "/accounts", {"data": b"{", "content_type": "application/json"}, 400),
    ("POST", "/accounts", {"data": b"{}", "content_type": "text/plain"}, 415),
    ("GET", "/users/me", {"headers": {"Authorization": "Bearer x"}}, 401),
    ("GET", "//openapi.json", {}, 200),
    ("GET", "//healthz/", {}, 404),
]


@pytest.mark.parametrize(("method", "path", "rest", "expected"), COUNTED)
def test_every_counted_answer_says_so(limited, ada, method, path, rest, expected):
    """Errors as well; 404 and 405 are counted too."""
    api = limited(Limit(5, 60))
    answers = [api(method, path.format(ada=ada.id), ada, **rest) for _ in range(2)]
    assert [status(answer) for answer in answers] == [expected] * 2
    assert [state(answer) for answer in answers] == [
        (['"default";q=5;w=60'], ['"default";r=4;t=12']),
        (['"default";q=5;w=60'], ['"default";r=3;t=24']),
    ]


@pytest.mark.parametrize("path", ["//healthz", "//readyz"])
def test_the_health_routes_are_not_limited(limited, path):
    """A probe never gets 429, and probes use up no quota."""
    api = limited(Limit(1, 3600), Limit(1, 3600))
    answers = [api(method, path) for method in ("GET", "HEAD", "GET")]
    assert [(status(answer), *state(answer)) for answer in answers] == [(200, [], [])] * 3
    assert [status(api.get("/products")) for _ in range(2)] == [200, 429]
    assert status(api.get(path)) == 200


def test_a_user_is_counted_apart_from_others_at_whatever_address(limited, ada, grace):
    """By user once authenticated, else by address."""
    api = limited(Limit(2, 60))
    assert [status(api.get("/users/me", ada, address=f"198.51.100.{n}")) for n in range(3)] == [200, 200, 429]
    assert [status(api.get("/users/me", grace, address="198.51.100.1")) for _ in range(3)] == [200, 200, 429]
    assert [status(api.get("/products", address="198.51.100.1")) for _ in range(3)] == [200, 200, 429]
    assert status(api.get("/products", address="198.51.100.2")) == 200


def test_a_bad_token_is_counted_by_its_address(limited, ada, clock):
    """Also one that has expired: it names no user."""
    api = limited(Limit(4, 60))
    api.get("/users/me", replace(ada, access="x"))
    clock.advance(901)
    assert state(api.get("/users/me", ada))[1] == ['"default";r=2;t=30']
    assert state(api.get("/products"))[1] == ['"default";r=1;t=45']


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"address": "2001:db8:1:2::1"}, {"address": "2001:db8:1:2:ffff::9"}, True),
        ({"address": "2001:db8:1:2::1"}, {"address": "2001:db8:1:3::1"}, False),
        ({"address": "::ffff:198.51.100.9"}, {"address": "198.51.100.9"}, True),
        ({"address": "198.51.100.9"}, {"address": "198.51.100.9", "headers": {"X-Forwarded-For": "6.6.6.6"}}, True),
        ({"address": "10.0.0.1", "headers": {"X-Forwarded-For": "1.1.1.1"}}, {"address": "10.0.0.2"}, False),
        (
            {"address": "10.0.0.1", "headers": {"X-Forwarded-For": "6.6.6.6, 1.1.1.1"}},
            {"address": "10.0.0.2", "headers": {"X-Forwarded-For": "7.7.7.7, 1.1.1.1:80"}},
            True,
        ),
    ],
)
def test_a_client_is_an_address_or_a_64(limited, first, second, same):
    """The address that trusted proxies vouch for, not what the client wrote into the header."""
    api = limited(Limit(1, 60), trusted_proxies=Networks("10.0.0.0/8"))
    assert status(api.get("/products", **first)) == 200
    assert status(api.get("/products", **second)) == (429 if same else 200)


def test_a_limit_is_exact_under_concurrent_requests(limited):
    """Forty requests at once, at two applications with one limiter."""
    workers = [limited(Limit(10, 60)), limited(Limit(10, 60))]
    answers = at_once([lambda n=n: workers[n % 2].get("/nowhere") for n in range(40)])
    assert sorted(status(answer) for answer in answers) == [404] * 10 + [429] * 30


def test_guesses_at_the_same_moment_are_no_more_than_the_quota(limited, ada, bcrypt_runs):
    """Forty wrong passwords for one e-mail at two workers, from as many addresses."""
    workers = [limited(auth=Limit(10, 60)), limited(auth=Limit(10, 60))]
    answers = at_once(
        [lambda n=n: workers[n % 2].post("/auth/login", json=LOGIN, address=f"198.51.100.{n}") for n in range(40)]
    )
    assert sorted(status(answer) for answer in answers) == [401] * 10 + [429] * 30
    assert len(bcrypt_runs) == 10


def test_off_switches_a_policy_off(limited):
    """`off` in the environment; the other policy stays."""
    limits = [
        Settings.from_environment({"RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "2/60"}),
        Settings.from_environment({"RATE_LIMIT_DEFAULT": "2/60", "RATE_LIMIT_AUTH": "off"}),
        Settings.from_environment({"RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "off"}),
    ]
    answers = [limited(one.rate_limit_default, one.rate_limit_auth).post("/auth/login", json=LOGIN) for one in limits]
    assert [state(answer)[1] for answer in answers] == [['"auth";r=1;t=30'], ['"default";r=1;t=30'], []]
    assert state(answers[2]) == ([], [])
    defaults = Settings.from_environment({})
    assert (defaults.rate_limit_default, defaults.rate_limit_auth) == (Limit(300, 60), Limit(10, 60))


@pytest.mark.parametrize("path", AUTH_ROUTES)
def test_a_refused_request_costs_no_bcrypt_and_no_write(limited, api, ada, outsider, bcrypt_runs, path):
    """Whichever policy refuses it."""
    by_address, by_default = limited(auth=Limit(1, 3600)), limited(Limit(1, 3600))
    for one in (api, by_address, by_default):
        one.app.relay.stop()  # to deliver an event is a write
    for api, first in ((by_address, "/users"), (by_default, "/products")):
        api.post(first, ada, {})
        before = outsider.version()
        assert refused(api.post(path, ada, AUTH_ROUTES[path]))
        assert (bcrypt_runs, outsider.version()) == ([], before)
