"""Passwords: which ones are accepted, that every character counts, and how a user changes one."""

import unicodedata

import pytest

from tests.answers import reason
from tests.at_once import at_once
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox

NEW = "another good password"


def sign_up(api, password, email="mary@example.com"):
    return api.post("/users", json={"email": email, "password": password, "name": "Mary"})


def log_in(api, password, email="mary@example.com"):
    return api.post("/auth/login", json={"email": email, "password": password}).status_code


def change(api, person, new=NEW, current=PASSWORD):
    return api.post("/auth/password", person, {"currentPassword": current, "newPassword": new})


def refresh(api, token):
    return api.post("/auth/refresh", json={"refreshToken": token})


@pytest.fixture(params=["sign-up", "change", "reset"])
def choose(request, api, settings):
    """The three ways to set a password for mary@example.com. Each answers, and knows the name of its field."""
    if request.param == "sign-up":
        return lambda password: (sign_up(api, password), "password")
    mary = api.sign_up("Mary")
    if request.param == "change":
        return lambda password: (change(api, mary, password), "newPassword")
    token = Mailbox(settings.database_path.parent / "outbox").reset_token(api, mary.email)
    body = {"token": token}
    return lambda password: (
        api.post("/auth/password-reset/confirm", json={**body, "newPassword": password}),
        "newPassword",
    )


@pytest.mark.parametrize(
    "password",
    [
        "7 chars", "", "é" * 7, "e\u0301" * 7, "x" * 257, "é" * 257, "nul\0inside", "good but\0", None, 12345678,
        ["a good one"], "password", "12345678", "qwertyuiop", "PassWord1", "mary@example.com", "MARY@example.COM",
        "P@ssw0rd1", "p@$$w0rd", "1qaz2wsx", "changeme1", " " * 8, "\t\u3000 \n" * 2, "Reference Backend",
        "reference-backend", "P@ssw0rd1!", "p a s s w o r d", "  password  ", "Pass-Word_123!", "b4sk3tb411",
        "1l0v3y0u", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "pass\u200bword", "r3f3rence b4ckend",
        "\u200b" * 8, "\u3164" * 8, "\u2800 " * 4, "\ufe0f\u2060" * 4,
    ],
)  # fmt: skip
def test_a_weak_password_is_refused(choose, password):
    """422 that names the field: too short or too long after NFC, with NUL, a common one, or the e-mail in any case."""
    answer, field = choose(password)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "VALIDATION_ERROR"), answer.text
    assert answer.json["error"]["details"].keys() == {field}


@pytest.mark.parametrize(
    "password",
    [
        "mary.wollstonecraft", "Mary Wollstonecraft", "MARYWOLLSTONECRAFT", "mary-wollstonecraft!",
        "M4ryWollst0necraft", "\uff2dary\u200bWollstonecraft",
    ],
)  # fmt: skip
def test_a_password_is_neither_the_name_nor_the_first_part_of_the_address(api, password):
    """In any case and spelling; nor the changed name, nor the changed address."""
    body = {"email": "mary.wollstonecraft@example.com", "name": "M. W.", "password": password}
    assert api.post("/users", json=body).json["error"]["details"].keys() == {"password"}
    body = {"email": "mary@example.com", "name": "Mary Wollstonecraft", "password": password}
    assert api.post("/users", json=body).json["error"]["details"].keys() == {"password"}
    mary = api.sign_up("Mary")
    assert change(api, mary, f"{password} 1792").status_code == 204
    api.patch("/users/me", mary, {"name": "Mary Wollstonecraft"})
    answer = change(api, mary, password, current=f"{password} 1792")
    assert answer.json["error"]["details"].keys() == {"newPassword"}


def test_a_password_is_not_the_name_where_that_has_no_letters(api):
    name = "\U0001f600\U0001f601" * 5
    body = {"email": "mary@example.com", "name": name, "password": name}
    assert api.post("/users", json=body).json["error"]["details"].keys() == {"password"}
    assert api.post("/users", json=body | {"password": name[::-1]}).status_code == 201


@pytest.mark.parametrize(
    "password",
    [
        "8 chars!", "!?!?!?!?", "\U0001faa9\u200d" * 4,
        "é" * 8, "x" * 256, "é" * 256, "e\u0301" * 256, "\U0001f600" * 256, "  spaces stay  ",
        "a\ttab in it",
    ],
)  # fmt: skip
def test_a_good_password_is_accepted_and_logs_in(api, choose, password):
    answer, _ = choose(password)
    assert answer.status_code in (201, 204), answer.text
    assert log_in(api, password) == 200
    assert log_in(api, f"{password[2:]}?") == 401


def test_the_new_password_replaces_the_old(api, choose):
    choose(NEW)
    assert (log_in(api, NEW), log_in(api, PASSWORD)) == (200, 401)


@pytest.mark.parametrize("length", [72, 73, 100, 256])
def test_every_character_counts_beyond_bcrypts_72_bytes(api, length):
    """Another character anywhere, the last one included, or one fewer makes another password."""
    password = "p" * length
    sign_up(api, password)
    for place in (0, 70, 71, length - 1):
        assert log_in(api, f"{password[:place]}q{password[place + 1 :]}") == 401
    assert log_in(api, password[:-1]) == 401
    assert log_in(api, password) == 200


def test_composed_and_decomposed_characters_are_the_same(api):
    """NFC and NFD of one password both log in; without its accents it does not."""
    composed = "crème brûlée à Zürich"
    decomposed = unicodedata.normalize("NFD", composed)
    sign_up(api, composed, "nfc@example.com")
    sign_up(api, decomposed, "nfd@example.com")
    for email in ("nfc@example.com", "nfd@example.com"):
        assert log_in(api, composed, email) == log_in(api, decomposed, email) == 200
        assert log_in(api, "creme brulee a Zurich", email) == 401


@pytest.mark.parametrize("other", [" long enough", "long enough ", "LONG ENOUGH", "long  enough"])
def test_white_space_and_case_count(api, other):
    sign_up(api, "long enough")
    assert (log_in(api, "long enough"), log_in(api, other)) == (200, 401)


def test_a_change_ends_every_other_login_and_keeps_this_one(api, ada, grace):
    """204; the login that changed it goes on with its access and refresh token, and can refresh."""
    device = api.log_in(ada.email)
    answer = change(api, ada)
    assert (answer.status_code, answer.data) == (204, b"")
    assert reason(api.get("/users/me", device)) == reason(refresh(api, device.refresh)) == "revoked"
    assert api.get("/users/me", ada).status_code == 200
    pair = refresh(api, ada.refresh).json["data"]
    assert api.get("/users/me", headers={"Authorization": f"Bearer {pair['accessToken']}"}).status_code == 200
    assert refresh(api, pair["refreshToken"]).status_code == 200
    assert api.get("/users/me", grace).status_code == 200


def test_a_password_can_be_changed_again_and_again(api, ada):
    """Each change ends the other logins, also those opened since the last change, and this login goes on."""
    for current, new in ((PASSWORD, NEW), (NEW, "a third password"), ("a third password", NEW)):
        device = api.log_in(ada.email, current)
        assert change(api, ada, new, current).status_code == 204
        assert reason(api.get("/users/me", device)) == "revoked"
    assert api.get("/users/me", ada).status_code == 200
    assert len(api.get("/auth/sessions", ada).json["data"]) == 1


@pytest.mark.parametrize("wrong", ["a wrong password", "x", PASSWORD.upper(), f"{PASSWORD} "])
def test_a_wrong_current_password_changes_nothing(api, ada, wrong):
    """401 `credentials`; every login and the old password stay valid."""
    device = api.log_in(ada.email)
    assert reason(change(api, ada, current=wrong)) == "credentials"
    assert api.get("/users/me", device).status_code == 200
    assert (log_in(api, PASSWORD, ada.email), log_in(api, NEW, ada.email)) == (200, 401)


def test_a_change_needs_a_login(api):
    assert reason(change(api, None)) == "missing"


def test_a_change_of_password_is_no_change_of_the_user(api, ada):
    before = api.get("/users/me", ada).json["data"]
    change(api, ada)
    assert api.get("/users/me", ada).json["data"] == before


@pytest.mark.parametrize("number", range(3))
def test_of_two_changes_at_once_one_wins(api, ada, number):
    """Both have the current password. The second is refused, its login has ended, and the first password stands."""
    device = api.log_in(ada.email)
    news = {"first new password": ada, "other new password": device}
    answers = at_once([lambda new=new, by=by: change(api, by, new) for new, by in news.items()])
    assert sorted(answer.status_code for answer in answers) == [204, 401]
    won = [answer.status_code == 204 for answer in answers]
    assert [log_in(api, new, ada.email) == 200 for new in news] == won
    assert [api.get("/users/me", by).status_code == 200 for by in news.values()] == won
