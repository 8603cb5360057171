"""Query parameters: an unknown, repeated or malformed one is 422, on any resource."""

import pytest

from tests.answers import details

LISTS = ["/users", "/products", "/accounts", "/orders", "/accounts/{account}/transactions"]
SINGLES = [
    "/users/me", "/users/{user}", "/products/{product}", "/accounts/{account}", "/auth/sessions", "//openapi.json",
    "//healthz",
]  # fmt: skip


@pytest.fixture
def get(api, admin):
    """GET a path in which `{account}` and so on stand for existing resources."""
    known = {"account": api.account(admin), "product": api.product(admin), "user": admin.id}
    return lambda path: api.get(path.format(**known), admin)


@pytest.mark.parametrize("path", [*LISTS, *SINGLES])
def test_an_unknown_parameter_is_refused_everywhere(get, path):
    """Also on a single resource; the error names it as decoded."""
    for name in ("colour", "Limit", "limit[]", "page_size", "", "%00", "__class__"):
        assert details(get(f"{path}?{name}=1")) == {name.replace("%00", "\0"): "unknown parameter"}


@pytest.mark.parametrize("path", [*LISTS, *SINGLES])
def test_no_parameters_are_fine_however_written(get, path):
    assert [get(path + query).status_code for query in ("", "?", "?&", "?&&")] == [200] * 4


@pytest.mark.parametrize(
    ("path", "query", "where"),
    [
        ("/users", "page=1&page=1", "page"),
        ("/users", "page=1&pageSize=2&page=2", "page"),
        ("/users", "q=&q=", "q"),
        ("/users", "role=user&r%6Fle=user", "role"),
        ("/products", "limit=1&limit=2", "limit"),
        ("/orders", "status=placed&status=placed", "status"),
    ],
)
def test_a_repeated_parameter_is_refused(get, path, query, where):
    assert details(get(f"{path}?{query}")) == {where: "must not be repeated"}


NO_NUMBERS = [
    "", "0", "-1", "+1", "%2B1", "1.0", "1e1", "1E1", "0x1", "1_0", "%201", "1%20", "1%0A", "1%00", "%D9%A3", "٣",
    "³", "one", "true", "null", "%zz", "%", "1%", "101", "9" * 19, "9" * 20, "9" * 5_000, "1,2", "1;2",
]  # fmt: skip


@pytest.mark.parametrize(("path", "name"), [("/products", "limit"), ("/orders", "limit"), ("/users", "pageSize")])
def test_what_is_no_plain_number_in_range_is_refused(get, path, name):
    for written in NO_NUMBERS:
        assert details(get(f"{path}?{name}={written}")).keys() == {name}, written


@pytest.mark.parametrize(("path", "name"), [("/products", "limit"), ("/users", "pageSize")])
def test_a_plain_number_in_range_is_taken(get, path, name):
    for written in ("1", "100", "007", "%31", "1&"):
        assert get(f"{path}?{name}={written}").status_code == 200, written


def test_what_is_no_page_number_is_refused(get):
    for written in ("0", "-1", "+1", "1.0", "", str(2**63), "9" * 30, "%D9%A3"):
        assert details(get(f"/users?page={written}")).keys() == {"page"}, written


@pytest.mark.parametrize("path", ["/users?q=", "/users?q=a&role=", "/products?cursor=", "/products/{product}?"])
def test_what_is_not_utf_8_once_decoded_is_refused(get, path):
    for garbage in ("%FF", "%C0%AF", "%ED%A0%80", "%F5%80%80%80", "%80"):
        assert details(get(path + garbage)) == {"query": "must be percent-encoded UTF-8"}


def test_bytes_that_are_not_percent_encoded_are_read_as_utf_8_too(api, admin):
    """A server that accepts them passes them on as Latin-1 (PEP 3333)."""

    def users(raw):
        return api.get("/users", admin, environ_overrides={"QUERY_STRING": raw.decode("latin-1")})

    person = {"email": "zoe@example.com", "name": "Zoë", "password": "correct horse"}
    zoe = api.post("/users", json=person).json["data"]["id"]
    for query in (b"q=zo%C3%AB", "q=zoë".encode(), b"q=zo%C3%AB&role=user"):
        assert [user["id"] for user in users(query).json["data"]] == [zoe]
    assert details(users("ö=1".encode())) == {"ö": "unknown parameter"}
    for garbage in (b"q=zo\xeb", b"q=\x80", b"q=\xed\xa0\x80", b"\xff=1"):
        assert details(users(garbage)) == {"query": "must be percent-encoded UTF-8"}


@pytest.mark.parametrize(
    "query",
    ["role=root", "role=", "role=User", "sort=name", "sort=", "sort=createdat", "sort=--email", "include=items",
     "include=", "q=%00", "q=a%0Ab", "q=" + "a" * 101],
)  # fmt: skip
def test_an_unknown_value_is_refused(get, query):
    assert details(get(f"/users?{query}")).keys() == {query.partition("=")[0]}


@pytest.mark.parametrize(
    "query", ["q=", "q=" + "a" * 100, "q=" + "%C3%A9" * 100, "q=%20ad%20", "q=007", "role=user&sort=-email"]
)
def test_a_known_value_is_accepted(get, query):
    assert get(f"/users?{query}").status_code == 200


def test_all_wrong_parameters_are_reported_at_once(get):
    wrong = details(get("/users?page=0&pageSize=1000&role=root&colour=red&q=a&q=b"))
    assert wrong.keys() == {"page", "pageSize", "role", "colour", "q"}


def test_of_many_wrong_parameters_fifty_are_reported(get):
    """Whatever their kind and number, and whatever valid ones are among them."""
    unknown = "&".join(f"a{n:x}" for n in range(1500))
    assert details(get(f"/users?page=1&{unknown}")) == {f"a{n:x}": "unknown parameter" for n in range(50)}
    assert details(get("/users?" + "page=1&" * 1000)) == {"page": "must not be repeated"}
    assert details(get(f"/users?{'&' * 500}page=0")).keys() == {"page"}


@pytest.mark.parametrize("path", ["/orders?userId={user}", "/accounts?ownerId={user}"])
def test_a_filter_for_admins_is_unknown_for_users(api, admin, ada, path):
    """Even for one's own id; an admin may use it, and it must be an id."""
    assert details(api.get(path.format(user=ada.id), ada)) == {
        path.partition("?")[2].partition("=")[0]: "unknown parameter"
    }
    assert api.get(path.format(user=ada.id), admin).status_code == 200
    assert len(details(api.get(path.format(user="ada"), admin))) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/users"), ("PATCH", "/users/me"), ("DELETE", "/auth/sessions"), ("POST", "/auth/logout"),
     ("POST", "/accounts")],
)  # fmt: skip
def test_routes_that_write_know_no_parameters(api, ada, method, path):
    """Nothing is written."""
    body = {"POST/users": {"email": "n@example.com", "password": "correct horse", "name": "N"}, "PATCH/users/me": {},
            "POST/auth/logout": {"refreshToken": ada.refresh}, "POST/accounts": {"currency": "EUR"}}  # fmt: skip
    answer = api(method, f"{path}?dryRun=1", ada, json=body.get(method + path))
    assert details(answer) == {"dryRun": "unknown parameter"}
    assert api.get("/users/me", ada).status_code == 200
