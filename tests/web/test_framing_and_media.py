"""The headers that a body needs (411, 413, 415), and routes that take no body."""

import json

import pytest

from tests.answers import error_of

LOGOUT = json.dumps({"refreshToken": "not a token"}).encode()  # 204, and nothing happens
MAX_BODY = 64 * 1024


def post(api, content_type, headers=None, data=LOGOUT):
    return api("POST", "/auth/logout", data=data, content_type=content_type, headers=headers)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'Application/Json;Charset="UTF-8"',
     "application/json ; charset=Utf-8", "application/json;", "application/json; profile=x",
     "application/json;;; a=b;", 'application/json; profile="a;b"',
     "\tapplication/json\t;\tcharset=utf-8\t", "application/json; profile=x; charset=utf-8"],
)  # fmt: skip
def test_json_in_utf_8_is_taken(api, content_type):
    assert post(api, content_type).status_code == 204


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "text/json", "application/jsonx", "application/problem+json", "application/*", "*/*",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "application/json, text/plain",
     "application/json,application/json", "application/json; charset=latin-1", "application/json; charset=utf-16",
     "application/json; charset=utf8", "application/json; charset=us-ascii", "application/json; charset=",
     'application/json; charset=""', "application/json; charset*=iso-8859-1''x", "text/plain; application/json",
     "application/json; charset=utf-8; charset=latin-1", "application/json; charset=latin-1; charset=utf-8",
     "application/json; charset=utf-8; charset=utf-8", "application/json; charset = utf-8",
     "application/json; charset='utf-8'", "application/json; charset=utf-8x", "application/json; xcharset=utf-8",
     "application/json charset=utf-8", "application/json\x0b"],
)  # fmt: skip
def test_any_other_media_type_is_unsupported(api, content_type):
    """415, and `Accept` names the supported one."""
    answer = post(api, content_type)
    assert error_of(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["Accept"] == "application/json"


@pytest.mark.parametrize("path", ["/auth/logout", "/orders/{id}/cancel"])
def test_no_content_encoding_is_accepted(api, ada, order, path):
    """Not on a route without a body either."""
    rest = {"data": LOGOUT, "content_type": "application/json"}
    for coding in ("gzip", "br", "identity", "gzip, identity", "x"):
        answer = api("POST", path.format(id=order), ada, headers={"Content-Encoding": coding}, **rest)
        assert error_of(answer) == (415, "UNSUPPORTED_MEDIA_TYPE"), coding
        assert answer.headers["Accept"] == "application/json"


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "*/*;q=0", "image/*", "garbage;;"])
def test_answers_are_json_whatever_accept_says(api, accept):
    """Successes and errors."""
    assert api.get("/products", headers={"Accept": accept}).content_type == "application/json"
    assert api.get("/nowhere", headers={"Accept": accept}).content_type == "application/json"


@pytest.mark.parametrize(("method", "path"), [("POST", "/auth/logout"), ("GET", "/products"), ("GET", "/nowhere")])
def test_transfer_encoding_whatever_it_says_is_a_411(api, method, path):
    rest = {"data": LOGOUT, "content_type": "application/json"}
    for coding in ("chunked", "identity", "gzip", "gzip, chunked", "Chunked", "x", ""):
        answer = api(method, path, headers={"Transfer-Encoding": coding}, **rest)
        assert error_of(answer) == (411, "LENGTH_REQUIRED"), coding


TOO_LARGE = [str(MAX_BODY + 1), "9" * 15, "9" * 5_000]
NO_NUMBERS = ["abc", "-1", "+5", "5, 5", "0x5", "1_0", "5.0", "٣", "²"]


@pytest.mark.parametrize("method", ["POST", "GET", "PATCH"])
def test_a_content_length_is_a_number_of_up_to_64_kib(api, method):
    """Whether or not a route reads the body."""
    expected = dict.fromkeys(TOO_LARGE, (413, "PAYLOAD_TOO_LARGE")) | dict.fromkeys(NO_NUMBERS, (400, "BAD_REQUEST"))
    for length, error in expected.items():
        answer = api(method, "/products", data=LOGOUT, environ_overrides={"CONTENT_LENGTH": length})
        assert error_of(answer) == error, length


@pytest.mark.parametrize("zeros", ["0", "0" * 20, "0" * 8_000])
def test_leading_zeros_of_a_content_length_are_ignored(api, zeros):
    assert api.get("/products", environ_overrides={"CONTENT_LENGTH": zeros}).status_code == 200
    length = {"environ_overrides": {"CONTENT_LENGTH": f"{zeros}{len(LOGOUT)}"}}
    assert api("POST", "/auth/logout", data=LOGOUT, content_type="application/json", **length).status_code == 204


def test_a_body_of_exactly_64_kib_is_read(api):
    assert post(api, "application/json", data=LOGOUT.ljust(MAX_BODY)).status_code == 204


def test_a_body_of_one_byte_more_is_too_large(api):
    answer = post(api, "application/json", data=LOGOUT.ljust(MAX_BODY + 1))
    assert error_of(answer) == (413, "PAYLOAD_TOO_LARGE")


@pytest.fixture
def order(api, admin, ada):
    """A placed order of Ada."""
    account, product = api.account(ada, balance=1000, admin=admin), api.product(admin)
    made = api.post("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 1}]})
    return made.json["data"]["id"]


WITHOUT_BODY = [
    ("POST", "/orders/{order}/cancel", "admin", 200),
    ("POST", "/orders/{order}/fulfil", "admin", 200),
    ("DELETE", "/users/{user}", "admin", 204),
    ("DELETE", "/auth/sessions", "ada", 204),
    ("DELETE", "/auth/sessions/{session}", "ada", 204),
]


@pytest.fixture
def call(api, admin, ada, order):
    """One request to a route that takes no body."""
    people = {"admin": admin, "ada": ada}
    session = api.get("/auth/sessions", ada).json["data"][0]["id"]

    def send(method, path, caller, **rest):
        return api(method, path.format(order=order, user=ada.id, session=session), people[caller], **rest)

    return send


@pytest.mark.parametrize(
    ("data", "content_type"), [(b"", None), (b"{}", "application/json"), (b" { }\n", "text/plain")]
)
@pytest.mark.parametrize(("method", "path", "caller", "status"), WITHOUT_BODY)
def test_a_route_without_a_body_takes_none_or_an_empty_object(call, method, path, caller, status, data, content_type):
    """It needs no Content-Type."""
    assert call(method, path, caller, data=data, content_type=content_type).status_code == status


@pytest.mark.parametrize(("method", "path", "caller", "status"), WITHOUT_BODY)
def test_a_route_without_a_body_takes_nothing_else(call, method, path, caller, status):
    """The refused requests had no effect: the route still succeeds afterwards."""
    for data, expected in {
        b'{"a": 1}': (422, "VALIDATION_ERROR"),
        b"[]": (422, "VALIDATION_ERROR"),
        b"null": (422, "VALIDATION_ERROR"),
        b'""': (422, "VALIDATION_ERROR"),
        b" ": (400, "MALFORMED_JSON"),
        b"a=1": (400, "MALFORMED_JSON"),
        b"{}{}": (400, "MALFORMED_JSON"),
    }.items():
        assert error_of(call(method, path, caller, data=data, content_type="application/json")) == expected, data
    assert call(method, path, caller).status_code == status
