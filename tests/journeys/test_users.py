"""Users over HTTP: signing up, reading users, changing the own profile."""

import unicodedata

import pytest

from backend.infrastructure.ids import is_id
from tests.answers import details
from tests.at_once import at_once
from tests.conftest import PASSWORD, UNKNOWN_ID

NEW = {"email": "Mary@Example.com", "password": "a long enough one", "name": "Mary"}
USER_FIELDS = {"id", "email", "name", "roles", "active", "version", "createdAt", "updatedAt"}
TAKEN = {"email": "is taken"}


def me(api, person):
    return api.get("/users/me", person).json["data"]


def test_signing_up_makes_a_plain_active_user(api):
    """201 with a Location and every public field, the address as typed, and without password or hash."""
    answer = api.post("/users", json=NEW)
    user = answer.json["data"]
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/users/{user['id']}"
    assert user.keys() == USER_FIELDS and is_id(user["id"])
    shown = {name: user[name] for name in ("email", "name", "roles", "active", "version")}
    assert shown == {"email": "Mary@Example.com", "name": "Mary", "roles": ["user"], "active": True, "version": 1}
    assert user["createdAt"] == user["updatedAt"]
    assert NEW["password"] not in answer.text and "$2b$" not in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", None), ("email", 7), ("email", ""), ("email", "nobody"), ("email", "a@b"), ("email", "a@b@c.de"),
        ("email", "a b@example.com"), ("email", f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example"),
        ("email", "a\0@example.com"), ("name", None), ("name", ["Mary"]), ("name", ""), ("name", " \t "),
        ("name", "n" * 101), ("name", "Ma\0ry"), ("name", "Ma\nry"), ("name", "Ma\x7fry"), ("password", None),
        ("password", 12345678), ("password", ""), ("roles", ["admin"]), ("active", True), ("id", UNKNOWN_ID),
    ],
)  # fmt: skip
def test_a_sign_up_with_one_wrong_field_names_it(api, field, value):
    """422 with exactly that field in the details. Fields that only the server sets are unknown fields."""
    assert details(api.post("/users", json={**NEW, field: value})).keys() == {field}


def test_all_wrong_fields_of_a_sign_up_are_named_at_once(api):
    answer = api.post("/users", json={"email": "nobody", "name": "", "admin": True})
    assert details(answer).keys() == {"email", "password", "name", "admin"}


def test_names_are_trimmed_and_composed(api):
    """Surrounding white space is removed, inner white space stays; e-mails are trimmed too; NFD becomes NFC."""
    typed = unicodedata.normalize("NFD", "  Zoë de Lá  Cruz ")
    user = api.post("/users", json={**NEW, "email": " zoe@example.com ", "name": typed}).json["data"]
    assert (user["email"], user["name"]) == ("zoe@example.com", "Zoë de Lá  Cruz")


@pytest.mark.parametrize("length", [1, 100])
def test_a_name_has_1_to_100_characters(api, length):
    assert api.post("/users", json={**NEW, "name": "ñ" * length}).status_code == 201


def test_of_many_sign_ups_with_one_address_exactly_one_wins(api):
    """20 at once, the address in many cases: one 201, nineteen 409 that name the e-mail, one user.

    A request that gets 503 from the short queue of password hashing is sent again, as a client would.
    """

    def sign_up(number):
        cases = [str.upper if number >> place & 1 else str.lower for place in range(10)]
        email = "".join(case(letter) for case, letter in zip(cases, "mary@x.org", strict=True))
        while (answer := api.post("/users", json={**NEW, "email": email})).status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        return answer

    answers = at_once([lambda number=number: sign_up(number) for number in range(20)])
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 19
    assert all(details(answer, 409, "CONFLICT") == TAKEN for answer in refused)
    assert api.get("/users?q=mary@x.org", api.admin()).json["meta"]["pagination"]["total"] == 1


def test_both_paths_show_the_own_profile(api, ada):
    mine, by_id = api.get("/users/me", ada), api.get(f"/users/{ada.id}", ada)
    assert mine.json["data"] == by_id.json["data"]
    assert mine.json["data"].keys() == USER_FIELDS
    assert mine.headers["ETag"] == by_id.headers["ETag"] == '"1"'
    assert [answer.headers["Cache-Control"] for answer in (mine, by_id)] == ["no-store", "private, no-cache"]


def test_a_known_version_is_not_sent_again(api, ada):
    """304 without a body for the ETag, strong, weak or in a list; 200 once the version has risen."""
    path = f"/users/{ada.id}"
    for tag in ('"1"', 'W/"1"', '"0", "1"', "*"):
        answer = api.get(path, ada, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", '"1"')
    api.patch("/users/me", ada, {"name": "Ada L."})
    assert api.get(path, ada, headers={"If-None-Match": '"1"'}).status_code == 200


@pytest.mark.parametrize("whose", [UNKNOWN_ID, "me2", "not-an-id"])
def test_another_users_page_is_forbidden_whether_or_not_it_exists(api, ada, grace, whose):
    """403 for a plain user, for reading and changing alike, so the id leaks nothing."""
    for user_id in (grace.id, whose):
        assert details(api.get(f"/users/{user_id}", ada), 403, "FORBIDDEN") == {}
        assert details(api.patch(f"/users/{user_id}", ada, {"name": "Mine"}), 403, "FORBIDDEN") == {}
    assert me(api, grace)["name"] == "Grace"


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_a_user_changes_name_and_address(api, ada, clock, path):
    """200 with the whole user, a new version and `updatedAt`; the new address logs in, the old one does not."""
    before = me(api, ada)
    clock.advance(5)
    changes = {"name": " Ada L. ", "email": "Countess@Example.com", "currentPassword": PASSWORD}
    answer = api.patch(path.format(id=ada.id), ada, changes)
    after = answer.json["data"]
    assert answer.status_code == 200 and answer.headers["ETag"] == '"2"'
    assert after["updatedAt"] > before["updatedAt"]
    expected = {"name": "Ada L.", "email": "Countess@Example.com", "version": 2, "updatedAt": after["updatedAt"]}
    assert after == me(api, ada) == {**before, **expected}
    assert api.log_in("countess@example.com").id == ada.id
    assert api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize(
    "changes", [{}, {"name": "Ada"}, {"name": " Ada\n"}, {"email": "ada@example.com", "name": "Ada"}]
)
def test_a_change_to_the_same_values_raises_no_version(api, ada, clock, changes):
    """200 with the user unchanged, `updatedAt` too."""
    before = me(api, ada)
    clock.advance(5)
    assert api.patch("/users/me", ada, changes).json["data"] == before == me(api, ada)


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_another_users_address_cannot_be_taken(api, ada, grace, path):
    """409 with the e-mail in the details, whatever its case; the name in the same request does not change either."""
    answer = api.patch(
        path.format(id=ada.id), ada, {"name": "New", "email": "GRACE@example.com", "currentPassword": PASSWORD}
    )
    assert details(answer, 409, "CONFLICT") == TAKEN
    assert (me(api, ada)["name"], me(api, ada)["version"]) == ("Ada", 1)


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"name": None}, {"name"}), ({"email": None}, {"email"}), ({"name": "", "email": "x"}, {"name", "email"}),
        ({"password": "a new long one"}, {"password"}), ({"version": 2, "name": 1}, {"version", "name"}),
    ],
)  # fmt: skip
def test_a_wrong_change_names_its_fields(api, ada, path, changes, wrong):
    assert details(api.patch(path.format(id=ada.id), ada, changes)).keys() == wrong


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
@pytest.mark.parametrize(
    "changes", [{"roles": ["admin", "user"]}, {"active": False}, {"roles": ["user"]}, {"name": "New", "active": True}]
)
def test_a_user_cannot_change_the_own_roles_or_activity(api, ada, path, changes):
    """403, even for the present values, and no other field changes."""
    assert details(api.patch(path.format(id=ada.id), ada, changes), 403, "FORBIDDEN") == {}
    assert (me(api, ada)["name"], me(api, ada)["roles"], me(api, ada)["version"]) == ("Ada", ["user"], 1)


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
@pytest.mark.parametrize(
    "changes", [{"roles": None}, {"active": 7}, {"roles": ["root"], "name": ""}, {"active": False, "colour": "red"}]
)
def test_a_user_who_sends_roles_is_refused_before_the_body_is_checked(api, ada, path, changes):
    """The values of fields that the user may not set do not matter."""
    path = path.format(id=ada.id)
    assert details(api.patch(f"{path}?x=1", ada, changes), 403, "FORBIDDEN") == {}
    assert details(api.patch(path, ada, changes, headers={"If-Match": '"0"'}), 403, "FORBIDDEN") == {}


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_a_change_can_name_the_version_it_was_made_for(api, ada, path):
    """`If-Match`: 412 for another version and for a weak tag; the right tag, a list with it and `*` pass."""
    path = path.format(id=ada.id)
    for tag in ('"2"', 'W/"1"', '"0", "7"'):
        answer = api.patch(path, ada, {"name": "New"}, headers={"If-Match": tag})
        assert details(answer, 412, "PRECONDITION_FAILED") == {}
    assert me(api, ada)["version"] == 1
    for version, tag in enumerate(('"1"', '"1", "2"', "*"), 2):
        answer = api.patch(path, ada, {"name": f"Ada {version}"}, headers={"If-Match": tag})
        assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{version}"')


def test_of_two_changes_of_one_version_one_is_made(api, ada):
    def change(name):
        return api.patch("/users/me", ada, {"name": name}, headers={"If-Match": '"1"'}).status_code

    assert sorted(at_once([lambda: change("One"), lambda: change("Other")])) == [200, 412]
    assert me(api, ada)["version"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"), ("GET", "/users/me"), ("PATCH", "/users/me"), ("GET", "/users/{id}"),
        ("PATCH", "/users/{id}"), ("DELETE", "/users/{id}"),
    ],
)  # fmt: skip
def test_without_a_token_no_user_can_be_read_or_changed(api, ada, method, path):
    answer = api(method, path.format(id=ada.id), json={"name": "Mine"} if method == "PATCH" else None)
    assert details(answer, 401, "UNAUTHORIZED") == {"reason": "missing"}


@pytest.mark.parametrize("path", ["/users/me?verbose=1", "/users/{id}?include=orders", "/users/me?page=1"])
def test_a_single_user_takes_no_query_parameters(api, ada, path):
    assert details(api.get(path.format(id=ada.id), ada)).keys() == {path.partition("?")[2].partition("=")[0]}
