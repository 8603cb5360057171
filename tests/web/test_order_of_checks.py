"""The order of checks: of several faults of a request, the first in the order is reported.

framing → limit (429) → route (404) → method (405) → token (401) → role (403) → id (404) → headers and body (415, 400,
422) → preconditions (412) → state (409, 422)
"""

from dataclasses import replace

import pytest

from backend.settings import Limit
from tests.answers import error_of
from tests.conftest import PASSWORD

ABSENT = "01900000-0000-7000-8000-000000000000"
TEXT = {"data": b"}", "content_type": "text/plain"}  # 415, else 400
GARBAGE = {"data": b"}", "content_type": "application/json"}


@pytest.fixture
def impostor(ada):
    """A caller with a forged token."""
    return replace(ada, access=f"{ada.access}x")


@pytest.fixture
def exhausted(make_api):
    """An application at which this address has used up the limit."""
    api = make_api(rate_limit_default=Limit(1, 3600))
    assert api.get("/products").status_code == 200
    return api


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"headers": {"Transfer-Encoding": "chunked"}}, (411, "LENGTH_REQUIRED")),
        ({"environ_overrides": {"CONTENT_LENGTH": "65537"}}, (413, "PAYLOAD_TOO_LARGE")),
        ({"environ_overrides": {"CONTENT_LENGTH": "x"}}, (400, "BAD_REQUEST")),
    ],
)
def test_framing_comes_before_the_limit_and_is_not_counted(make_api, exhausted, fault, expected):
    assert error_of(exhausted.post("/nowhere", json={}, **fault)) == expected
    fresh = make_api(rate_limit_default=Limit(1, 3600))
    answers = [fresh.post("/nowhere", json={}, **fault) for _ in range(3)]
    assert [error_of(answer) for answer in answers] == [expected] * 3
    assert not any("RateLimit" in answer.headers for answer in answers)
    assert fresh.get("/products").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("PUT", "/products"), ("GET", "/users/me"), ("OPTIONS", "/products"), ("POST", "/users"),
     ("GET", "/products?x=1"), ("GET", "//openapi.json")],
)  # fmt: skip
def test_the_limit_comes_before_everything_else(exhausted, method, path):
    assert error_of(exhausted(method, path, **TEXT)) == (429, "RATE_LIMITED")


def test_a_limited_bad_token_is_a_429(make_api, impostor):
    """It is counted by address, because it names no user."""
    api = make_api(rate_limit_default=Limit(1, 3600))
    assert api.get("/users/me", impostor).status_code == 401
    assert error_of(api.get("/users/me", impostor)) == (429, "RATE_LIMITED")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_no_route_comes_before_method_token_and_body(api, impostor, method):
    assert error_of(api(method, "/nowhere?x=1", impostor, **TEXT)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/users/me", f"/users/{ABSENT}", "/users/garbage", "/auth/login"])
def test_the_method_comes_before_token_id_and_body(api, impostor, path):
    assert error_of(api("PUT", f"{path}?x=1", impostor, **TEXT)) == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/users"), ("PATCH", "/users/garbage"), ("DELETE", f"/users/{ABSENT}"), ("POST", "/products"),
     ("PATCH", "/products/garbage"), ("POST", "/orders/garbage/fulfil"), ("POST", "/accounts"),
     ("GET", "/transactions/garbage?x=1")],
)  # fmt: skip
def test_the_token_comes_before_role_id_and_body(api, impostor, method, path):
    """Both a missing and a bad token."""
    assert error_of(api(method, path, **TEXT)) == (401, "UNAUTHORIZED")
    assert error_of(api(method, path, impostor, **TEXT)) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/products"), ("GET", "/products/garbage"), ("POST", "/users"), ("POST", "/auth/login"),
     ("POST", "/auth/logout")],
)  # fmt: skip
def test_a_bad_token_is_refused_on_public_routes_too(api, impostor, method, path):
    answer = api(method, path, impostor, **TEXT)
    assert (error_of(answer), answer.json["error"]["details"]) == ((401, "UNAUTHORIZED"), {"reason": "invalid"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/users?x=1"), ("GET", "/users/garbage"), ("GET", f"/users/{ABSENT}"), ("PATCH", f"/users/{ABSENT}"),
     ("DELETE", "/users/garbage"), ("POST", "/products"), ("PATCH", f"/products/{ABSENT}"),
     ("POST", "/accounts/garbage/deposits"), ("POST", f"/orders/{ABSENT}/fulfil")],
)  # fmt: skip
def test_the_role_comes_before_id_and_body(api, ada, method, path):
    """So ids leak nothing: 403 for what exists and for what does not."""
    assert error_of(api(method, path, ada, **TEXT)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/users/{}?x=1"), ("PATCH", "/users/{}"), ("DELETE", "/users/{}"), ("PATCH", "/products/{}"),
     ("GET", "/accounts/{}/transactions?x=1"), ("POST", "/accounts/{}/deposits"), ("POST", "/orders/{}/cancel"),
     ("DELETE", "/auth/sessions/{}"), ("GET", "/transactions/{}")],
)  # fmt: skip
def test_the_id_comes_before_body_and_query(admin_call, method, path):
    """Both for a malformed id and for one that names nothing."""
    for wrong in (ABSENT, "garbage", "{id}", "%00", f"{ABSENT}%0A", f"%20{ABSENT}", ABSENT.upper().replace("0", "A")):
        answer = admin_call(method, path.replace("{}", wrong), headers={"If-Match": '"9"'}, **TEXT)
        assert error_of(answer) == (404, "NOT_FOUND"), wrong


@pytest.fixture
def admin_call(api, admin):
    return lambda method, path, **rest: api(method, path, admin, **rest)


WITH_BODY = [
    ("POST", "/users"),
    ("PATCH", "/users/me"),
    ("POST", "/products"),
    ("POST", "/transfers"),
    ("POST", "/accounts"),
    ("POST", "/auth/login"),
]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_the_media_type_comes_before_the_body_and_its_fields(admin_call, method, path):
    """415, then 400, then 422, also before a malformed key and an unknown parameter."""
    headers = {"Idempotency-Key": "a,b", "If-Match": '"9"'}
    path = f"{path}?x=1"
    assert error_of(admin_call(method, path, headers=headers, **TEXT)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert admin_call(method, path, headers=headers, **GARBAGE).status_code == 400
    assert error_of(admin_call(method, path, headers={"If-Match": '"9"'}, json=[])) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", ["/transfers", "/accounts", "/orders"])
def test_a_malformed_key_comes_before_the_fields(admin_call, path):
    assert error_of(admin_call("POST", path, key="a,b", json=[])) == (400, "BAD_REQUEST")


def test_the_fields_come_before_the_precondition(admin_call):
    answer = admin_call("PATCH", "/users/me", json={"name": ""}, headers={"If-Match": '"9"'})
    assert error_of(answer) == (422, "VALIDATION_ERROR")


def test_a_missing_current_password_comes_before_the_precondition(admin_call):
    answer = admin_call("PATCH", "/users/me", json={"email": "new@example.com"}, headers={"If-Match": '"9"'})
    assert error_of(answer) == (422, "VALIDATION_ERROR")


def test_the_precondition_comes_before_the_state(admin_call, admin, ada):
    """A taken e-mail and the last admin's role are 409 only if the version matches."""
    for change in ({"email": ada.email, "currentPassword": PASSWORD}, {"active": False}, {"roles": ["user"]}):
        answer = admin_call("PATCH", f"/users/{admin.id}", json=change, headers={"If-Match": '"9"'})
        assert error_of(answer) == (412, "PRECONDITION_FAILED")
        answer = admin_call("PATCH", f"/users/{admin.id}", json=change, headers={"If-Match": '"2"'})
        assert error_of(answer) == (409, "CONFLICT")
    assert error_of(admin_call("DELETE", f"/users/{admin.id}", headers={"If-Match": '"9"'}))[0] == 412
    assert error_of(admin_call("DELETE", f"/users/{admin.id}"))[0] == 409
