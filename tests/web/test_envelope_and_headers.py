"""The envelope, and the headers that every response carries."""

import re
from itertools import pairwise

import pytest

from backend.settings import Limit
from tests.conftest import PASSWORD

ABSENT = "01900000-0000-7000-8000-000000000000"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
POLICY = "default-src 'none'; frame-ancestors 'none'"  # a browser that shows a body as a page runs nothing of it
JSON = {"content_type": "application/json"}

# status → how to get an answer with it
ANSWERS = {
    200: ("GET", "/users/me", {}),
    201: ("POST", "/accounts", {"json": {"currency": "EUR"}}),
    202: ("POST", "/auth/password-reset", {"json": {"email": "nobody@example.com"}}),
    400: ("POST", "/auth/login", {"data": b"{", **JSON}),
    401: ("POST", "/auth/login", {"json": {"email": "nobody@example.com", "password": "wrong"}}),
    403: ("GET", "/users", {}),
    404: ("GET", "/nowhere", {}),
    405: ("PUT", "/users", {}),
    409: ("POST", "/users", {"json": {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}}),
    411: ("POST", "/users", {"headers": {"Transfer-Encoding": "chunked"}}),
    412: ("PATCH", "/users/me", {"json": {}, "headers": {"If-Match": '"9"'}}),
    413: ("POST", "/users", {"environ_overrides": {"CONTENT_LENGTH": "65537"}}),
    415: ("POST", "/users", {"data": b"{}", "content_type": "text/plain"}),
    422: ("GET", "/products?limit=0", {}),
}
WITHOUT_BODY = {
    204: ("DELETE", "/auth/sessions", {}),
    304: ("GET", "/users/{ada}", {"headers": {"If-None-Match": "*"}}),
}
ERRORS = {
    400: "MALFORMED_JSON", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT", 411: "LENGTH_REQUIRED", 412: "PRECONDITION_FAILED", 413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE", 422: "VALIDATION_ERROR",
}  # fmt: skip


@pytest.mark.parametrize("status", ANSWERS)
def test_every_body_is_the_envelope(api, ada, status):
    """It has `meta` and exactly one of `data` and `error`; the headers have an id, forbid sniffing and scripts."""
    method, path, rest = ANSWERS[status]
    answer = api(method, path, ada, **rest)
    assert (answer.status_code, answer.content_type) == (status, "application/json")
    assert answer.json.keys() == ({"data", "meta"} if status < 400 else {"error", "meta"})
    assert answer.json["meta"].keys() == {"requestId", "timestamp"}
    assert answer.headers.getlist("X-Request-ID") == [answer.json["meta"]["requestId"]]
    assert TIMESTAMP.fullmatch(answer.json["meta"]["timestamp"])
    assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.getlist("Content-Security-Policy") == [POLICY]
    assert answer.headers.getlist("Content-Length") == [str(len(answer.data))]


@pytest.mark.parametrize("status", ERRORS)
def test_an_error_has_code_and_message_and_perhaps_details(api, ada, status):
    """`details` is left out when empty."""
    method, path, rest = ANSWERS[status]
    error = api(method, path, ada, **rest).json["error"]
    assert error["code"] == ERRORS[status]
    assert error["message"]
    assert error.keys() == {"code", "message", *(["details"] if status in (401, 409, 422) else [])}
    assert error.get("details", True)


@pytest.mark.parametrize("status", WITHOUT_BODY)
def test_a_204_and_a_304_have_no_body(api, ada, status):
    """Nor do they have headers that describe one."""
    method, path, rest = WITHOUT_BODY[status]
    answer = api(method, path.format(ada=ada.id), ada, **rest)
    assert (answer.status_code, answer.data) == (status, b"")
    assert not {"Content-Type", "Content-Length"} & set(answer.headers.keys())
    assert REQUEST_ID.fullmatch(answer.headers["X-Request-ID"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == POLICY


def test_the_openapi_document_alone_is_bare(api):
    answer = api.get("//openapi.json")
    assert (answer.json["openapi"], "data" in answer.json) == ("3.1.0", False)
    assert api.get("//openapi.json?x=1").json["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("given", ["8letters", "A-Z.a_z-0123", "-" * 8, "x" * 64])
def test_a_clients_own_request_id_is_kept(api, given):
    for path in ("/products", "/nowhere"):
        answer = api.get(path, headers={"X-Request-ID": given})
        assert (answer.headers["X-Request-ID"], answer.json["meta"]["requestId"]) == (given, given)


@pytest.mark.parametrize(
    "given",
    ["", "7letter", "x" * 65, "x" * 5_000, "white space", "first-id,second-id", 'quo"ted"id', "semi;colon",
     "slash/slash", "ünïcödë-id", "plus+plus", " 8letters", "8letters\t"],
)  # fmt: skip
def test_a_malformed_request_id_is_replaced(api, given):
    answer = api.get("/products", headers={"X-Request-ID": given})
    made = answer.headers["X-Request-ID"]
    assert REQUEST_ID.fullmatch(made)
    assert made == answer.json["meta"]["requestId"]
    assert made.strip() != given.strip()


def test_generated_request_ids_differ(api):
    made = {api.get("/products").headers["X-Request-ID"] for _ in range(50)}
    assert len(made) == 50


@pytest.mark.parametrize("status", [*ANSWERS, *WITHOUT_BODY])
def test_answers_are_not_stored(api, ada, status):
    """A resource with an ETag and a URL of its own may be kept by the client, which must revalidate it."""
    method, path, rest = (ANSWERS | WITHOUT_BODY)[status]
    answer = api(method, path.format(ada=ada.id), ada, **rest)
    expected = "private, no-cache" if path == "/users/{ada}" else "no-store"
    assert answer.headers.getlist("Cache-Control") == [expected]
    assert ("ETag" in answer.headers) == (path in ("/users/{ada}", "/users/me") and status < 400)


@pytest.mark.parametrize(("path", "kept"), [("/users/me", "no-store"), ("/users/{ada}", "private, no-cache")])
def test_a_changed_user_is_kept_as_the_read_one_is(api, ada, path, kept):
    """Both carry an ETag; under `/users/me` it is for `If-Match` alone."""
    for answer in (api.get(path.format(ada=ada.id), ada), api.patch(path.format(ada=ada.id), ada, {"name": "A"})):
        assert answer.headers.getlist("Cache-Control") == [kept]
        assert "ETag" in answer.headers


@pytest.mark.parametrize("anonymous", [True, False])
def test_public_products_may_be_kept_by_any_cache_that_revalidates(api, admin, anonymous):
    """With or without a token, one product or the list, 200 or 304; but no error, and no response to a change."""
    product = f"/products/{api.product(admin)}"
    by = None if anonymous else admin
    good = [api.get(product, by), api.get(product, by, headers={"If-None-Match": '"1"'}), api.get("/products", by)]
    assert [answer.headers.getlist("Cache-Control") for answer in good] == [["no-cache"]] * 3
    assert [answer.headers.get("ETag") for answer in good] == ['"1"', '"1"', None]
    bad = [api.get(f"/products/{ABSENT}", by), api.get(f"{product}?x=1", by), api.get("/products?limit=0", by)]
    assert [answer.headers.getlist("Cache-Control") for answer in bad] == [["no-store"]] * 3
    changed = api.patch(product, admin, {"stock": 1})
    assert changed.headers.getlist("Cache-Control") == ["private, no-cache"]


@pytest.mark.parametrize("path", ["//healthz", "//readyz", "//openapi.json"])
def test_the_service_endpoints_are_not_stored_either(api, path):
    assert api.get(path).headers.getlist("Cache-Control") == ["no-store"]


def test_a_201_names_the_location_of_the_created_resource(api, admin, ada):
    """GET of `Location` returns what the 201 returned."""

    def made(path, by, body):
        answer = api.post(path, by, body)
        assert answer.status_code == 201
        where = answer.headers["Location"]
        assert where.startswith("/api/v1/")
        assert api.get(f"/{where}", admin).json["data"] == answer.json["data"]
        return answer.json["data"]["id"]

    made("/users", None, {"email": "new@example.com", "password": PASSWORD, "name": "New"})
    account, other = made("/accounts", ada, {"currency": "EUR"}), made("/accounts", ada, {"currency": "EUR"})
    product = made("/products", admin, {"sku": "S", "name": "N", "unitPrice": 1, "currency": "EUR", "stock": 9})
    made(f"/accounts/{account}/deposits", admin, {"amount": 100})
    made(f"/accounts/{account}/withdrawals", admin, {"amount": 1})
    made("/transfers", ada, {"fromAccountId": account, "toAccountId": other, "amount": 1})
    made("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 1}]})


CHALLENGE = re.compile(r'Bearer realm="[^"]+"(, error="invalid_token"(, error_description="[^"]+")?)?')


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("Bearer", "invalid"),
        ("Bearer ", "invalid"),
        ("Bearer x.y.z", "invalid"),
        ("Basic YWRhOnB3", "invalid"),
        ("{token}", "invalid"),
        ("Bearer {token} {token}", "invalid"),
        ("Bearer {refresh}", "invalid"),
        ("Bearer{token}", "invalid"),
    ],
)
def test_a_401_says_why_and_challenges(api, ada, authorization, reason):
    """RFC 6750: the challenge names an error only if a token was sent."""
    sent = (
        {} if authorization is None else {"Authorization": authorization.format(token=ada.access, refresh=ada.refresh)}
    )
    answer = api.get("/users/me", headers=sent)
    assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": reason})
    [auth_error] = answer.headers.getlist("WWW-Authenticate")
    assert CHALLENGE.fullmatch(auth_error)
    assert ("error=" in auth_error) == (reason != "missing")


def test_tokens_that_were_good_are_expired_or_revoked(api, ada, grace, clock):
    api.delete("/auth/sessions", grace)
    clock.advance(901)
    answers = [api.get("/users/me", ada), api.post("/auth/refresh", json={"refreshToken": grace.refresh})]
    assert [answer.json["error"]["details"]["reason"] for answer in answers] == ["expired", "revoked"]
    assert all(CHALLENGE.fullmatch(answer.headers["WWW-Authenticate"]) for answer in answers)


def test_the_message_of_a_401_says_what_happened(api, ada, grace, clock):
    """Each reason has its own message: a wrong password is not a missing token."""
    login = {"email": ada.email, "password": "wrong"}
    api.delete("/auth/sessions", grace)
    answers = [
        api.get("/users/me"),
        api.post("/auth/login", json=login),
        api.post("/auth/password", ada, {"currentPassword": "wrong", "newPassword": "a quiet harbour"}),
        api.get("/users/me", headers={"Authorization": "Bearer x.y.z"}),
        api.get("/users/me", headers={"Authorization": "Basic YWRhOnB3"}),
        api.get("/users/me", grace),
    ]
    clock.advance(901)
    answers.append(api.get("/users/me", ada))
    assert [answer.status_code for answer in answers] == [401] * 7
    errors = [answer.json["error"] for answer in answers]
    assert [(error["details"]["reason"], error["message"]) for error in errors] == [
        ("missing", "Authentication is required."),
        ("credentials", "The credentials are wrong."),
        ("credentials", "The credentials are wrong."),
        ("invalid", "The token is invalid."),
        ("invalid", "The Authorization header must hold a bearer token."),
        ("revoked", "The session has ended."),
        ("expired", "The token has expired."),
    ]


def test_the_scheme_is_read_in_any_case(api, ada):
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR", "Bearer "):  # RFC 9110 §11.4: one space or more
        assert api.get("/users/me", headers={"Authorization": f"{scheme} {ada.access}"}).status_code == 200


def test_wrong_credentials_are_challenged_without_an_error(api):
    """No token was sent, so the challenge names none as bad."""
    answer = api.post("/auth/login", json={"email": "nobody@example.com", "password": "wrong"})
    assert answer.json["error"]["details"] == {"reason": "credentials"}
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_a_busy_database_is_a_503_that_says_when_to_retry(make_api, ada, outsider):
    api = make_api(busy_timeout_seconds=1)
    with outsider.locked():
        answer = api.patch("/users/me", ada, {"name": "Other"})
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"


def test_times_of_one_answer_go_on_from_one_to_the_next(make_api):
    """Each envelope has its own time."""
    api = make_api(rate_limit_default=Limit(100, 60))
    times = [api.get("/products").json["meta"]["timestamp"] for _ in range(5)]
    assert all(earlier <= later for earlier, later in pairwise(times))
