"""CORS: exact origins, on successes and errors alike; no headers at all if no origin is configured."""

import pytest

ORIGIN = "https://app.example"
EXPOSED = {
    "Link", "Location", "ETag", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID",
    "Idempotency-Replayed",
}  # fmt: skip
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization, content-type, if-match, idempotency-key",
}


@pytest.fixture
def shared(make_api):
    """An application with two configured origins."""
    return make_api(cors_origins=frozenset({ORIGIN, "http://localhost:5173"}))


def cors(answer):
    return {name: value for name, value in answer.headers if name.startswith("Access-Control-")}


ANSWERS = [
    ("GET", "/products", {}, 200),
    ("HEAD", "/products", {}, 200),
    ("OPTIONS", "/products", {}, 204),
    ("GET", "/nowhere", {}, 404),
    ("OPTIONS", "/nowhere", {}, 404),
    ("PUT", "/products", {}, 405),
    ("GET", "/users/me", {}, 401),
    ("GET", "/products?limit=x", {}, 422),
    ("POST", "/auth/login", {"data": b"{", "content_type": "application/json"}, 400),
    ("POST", "/auth/login", {"data": b"{}", "content_type": "text/plain"}, 415),
    ("POST", "/auth/login", {"headers": {"Transfer-Encoding": "chunked"}}, 411),
    ("POST", "/auth/login", {"environ_overrides": {"CONTENT_LENGTH": "65537"}}, 413),
    ("GET", "//healthz", {}, 200),
    ("GET", "//openapi.json", {}, 200),
]


def send(api, method, path, rest, origin):
    headers = {**rest.get("headers", {}), **({"Origin": origin} if origin else {})}
    return api(method, path, **{**rest, "headers": headers})


@pytest.mark.parametrize(("method", "path", "rest", "status"), ANSWERS)
def test_every_answer_to_a_known_origin_may_be_read_by_it(shared, method, path, rest, status):
    """Also errors, so that a script can read what was wrong; never with credentials."""
    answer = send(shared, method, path, rest, ORIGIN)
    assert (answer.status_code, answer.headers.getlist("Vary")) == (status, ["Origin"])
    allowed = cors(answer)
    assert set(allowed.pop("Access-Control-Expose-Headers").split(", ")) == EXPOSED
    assert allowed == {"Access-Control-Allow-Origin": ORIGIN}


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", "*", "https://app.example/", "https://APP.example", "http://app.example", "https://app.example:443",
     "https://app.example.evil.example", "https://evil.example", "https://sub.app.example", f"{ORIGIN}, {ORIGIN}",
     "app.example", f" {ORIGIN}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/products", "/nowhere"])
def test_another_origin_gets_no_cors_headers(shared, path, origin):
    """Origins are compared byte for byte. `Vary` is sent all the same: a cache must not mix the two."""
    answer = send(shared, "GET", path, {}, origin)
    assert cors(answer) == {}
    assert answer.headers.getlist("Vary") == ["Origin"]


def test_each_origin_is_allowed_by_its_own_name(shared):
    for origin in (ORIGIN, "http://localhost:5173"):
        answer = send(shared, "GET", "/products", {}, origin)
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]


@pytest.mark.parametrize("path", ["/users/me", "/products", "/orders/whichever/cancel"])
def test_a_preflight_is_valid_for_ten_minutes(shared, path):
    """It needs no token, and allows every header that a route reads."""
    answer = shared("OPTIONS", path, headers=PREFLIGHT)
    assert (answer.status_code, answer.data) == (204, b"")
    allowed = cors(answer)
    assert allowed["Access-Control-Allow-Origin"] == ORIGIN
    assert allowed["Access-Control-Max-Age"] == "600"
    methods = set(allowed["Access-Control-Allow-Methods"].split(", "))
    assert methods >= {"GET", "POST", "PATCH", "DELETE"}
    headers = {name.lower() for name in allowed["Access-Control-Allow-Headers"].split(", ")}
    assert headers >= {"authorization", "content-type", "if-match", "if-none-match", "idempotency-key", "x-request-id"}
    assert "Access-Control-Allow-Credentials" not in allowed


def test_a_preflight_of_another_origin_allows_nothing(shared):
    assert cors(shared("OPTIONS", "/users/me", headers={**PREFLIGHT, "Origin": "https://evil.example"})) == {}


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_only_a_preflight_is_answered_as_one(shared, method):
    """Another method is none, nor is an OPTIONS request that asks for no method."""
    headers = PREFLIGHT if method == "GET" else {"Origin": ORIGIN}
    assert cors(shared(method, "/products", headers=headers)).keys() == {
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
    }


def test_a_preflight_for_no_route_is_a_404_that_may_be_read(shared):
    answer = shared("OPTIONS", "/nowhere", headers=PREFLIGHT)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "NOT_FOUND")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_an_answer_with_everything_exposes_what_it_carries(shared):
    """ETag and Location of a real answer are among the exposed."""
    made = shared.post(
        "/users", json={"email": "a@b.de", "password": "correct horse", "name": "A"}, headers={"Origin": ORIGIN}
    )
    assert made.status_code == 201
    assert "Location" in made.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(("method", "path", "rest", "status"), ANSWERS)
def test_without_configured_origins_there_are_no_cors_headers(api, method, path, rest, status):
    answer = send(api, method, path, rest, ORIGIN)
    assert answer.status_code == status
    assert cors(answer) == {}
    assert "Vary" not in answer.headers
    assert cors(api("OPTIONS", "/products", headers=PREFLIGHT)) == {}
