"""Commits made while bcrypt runs count: a request is refused if its password, session or token has ended."""

from functools import partial

import pytest

from tests.answers import reason
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.meanwhile import meanwhile

SLOW, FAST = "the password of the slow one", "the password of the fast one"


@pytest.fixture
def reset_token(api, settings):
    mailbox = Mailbox(settings.database_path.parent / "outbox")
    return lambda person: mailbox.reset_token(api, person.email)


def change(api, person, new, current=PASSWORD):
    return api.post("/auth/password", person, {"currentPassword": current, "newPassword": new})


def confirm(api, token, new):
    return api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": new})


def log_in(api, person, password=PASSWORD):
    return api.post("/auth/login", json={"email": person.email, "password": password})


def opens(api, person):
    """The passwords with which a login succeeds."""
    return [password for password in (PASSWORD, SLOW, FAST) if log_in(api, person, password).status_code == 200]


def is_live(api, person):
    return api.get("/users/me", person).status_code == 200


@pytest.mark.parametrize("during", ["checkpw", "hashpw"])
@pytest.mark.parametrize("end", ["logout", "from another device", "all"])
def test_a_change_from_a_login_that_has_ended_is_refused(api, ada, monkeypatch, end, during):
    """401 `revoked`: the password stays, and so does every other login."""
    device = api.log_in(ada.email)
    (ours,) = [one["id"] for one in api.get("/auth/sessions", ada).json["data"] if one["current"]]
    ways = {
        "logout": lambda: api.post("/auth/logout", json={"refreshToken": ada.refresh}),
        "from another device": lambda: api.delete(f"/auth/sessions/{ours}", device),
        "all": lambda: api.delete("/auth/sessions", device),
    }
    meanwhile(monkeypatch, ways[end], during)
    assert reason(change(api, ada, SLOW)) == "revoked"
    assert not is_live(api, ada)
    assert is_live(api, device) is (end != "all")
    assert opens(api, ada) == [PASSWORD]


@pytest.mark.parametrize("during", ["checkpw", "hashpw"])
@pytest.mark.parametrize("changes_before", [0, 1, 2])
def test_of_two_changes_from_one_login_the_later_is_refused(api, ada, monkeypatch, changes_before, during):
    """It began with a password that is no longer the current one. The login goes on."""
    for _ in range(changes_before):
        assert change(api, ada, PASSWORD).status_code == 204
    inner = []
    meanwhile(monkeypatch, lambda: inner.append(change(api, ada, FAST).status_code), during)
    assert reason(change(api, ada, SLOW)) == "credentials"
    assert inner == [204]
    assert is_live(api, ada)
    assert opens(api, ada) == [FAST]


@pytest.mark.parametrize("how_often", [1, 2, 3])
@pytest.mark.parametrize("act", ["change", "reset"])
def test_a_login_with_the_former_password_is_refused(api, ada, reset_token, monkeypatch, act, how_often):
    """Each time, not only the first: a counter tells the login that the password was replaced."""
    current = PASSWORD
    for number in range(how_often):
        new = f"{FAST} {number}"
        if act == "reset":
            replace = partial(confirm, api, reset_token(ada), new)
        else:
            replace = partial(change, api, ada, new, current)
        meanwhile(monkeypatch, replace)
        assert reason(log_in(api, ada, current)) == "credentials"
        current = new
    assert log_in(api, ada, current).status_code == 200


@pytest.mark.parametrize("act", ["deactivation", "deletion", "deactivation and back"])
def test_a_login_of_a_user_who_was_deactivated_is_refused(api, admin, ada, monkeypatch, act):
    def deactivate():
        if act == "deletion":
            return api.delete(f"/users/{ada.id}", admin)
        api.patch(f"/users/{ada.id}", admin, {"active": False})
        return act == "deactivation" or api.patch(f"/users/{ada.id}", admin, {"active": True})

    meanwhile(monkeypatch, deactivate)
    assert reason(log_in(api, ada)) == "credentials"


@pytest.mark.parametrize("act", ["reset", "deactivation", "deletion"])
def test_a_change_is_refused_after_a_reset_or_the_end_of_its_user(api, admin, ada, reset_token, monkeypatch, act):
    token, done = reset_token(ada), []
    acts = {
        "reset": lambda: confirm(api, token, FAST),
        "deactivation": lambda: api.patch(f"/users/{ada.id}", admin, {"active": False}),
        "deletion": lambda: api.delete(f"/users/{ada.id}", admin),
    }
    meanwhile(monkeypatch, lambda: done.append(acts[act]().status_code))
    assert reason(change(api, ada, SLOW)) in ("credentials", "revoked")
    assert done in ([204], [200])
    assert opens(api, ada) == ([FAST] if act == "reset" else [])


def test_of_two_uses_of_a_reset_token_the_later_is_refused(api, ada, reset_token, monkeypatch):
    """Both have found the token valid; the one that commits first has used it."""
    token, inner = reset_token(ada), []
    meanwhile(monkeypatch, lambda: inner.append(confirm(api, token, FAST).status_code), "hashpw")
    later = confirm(api, token, SLOW)
    assert (later.status_code, later.json["error"]["details"].keys()) == (422, {"token"})
    assert inner == [204]
    assert opens(api, ada) == [FAST]


@pytest.mark.parametrize("act", ["half an hour", "change", "deactivation", "deletion"])
def test_a_reset_whose_token_has_become_void_is_refused(api, admin, ada, reset_token, clock, monkeypatch, act):
    token = reset_token(ada)
    acts = {
        "half an hour": lambda: clock.advance(30 * 60),
        "change": lambda: change(api, ada, FAST),
        "deactivation": lambda: api.patch(f"/users/{ada.id}", admin, {"active": False}),
        "deletion": lambda: api.delete(f"/users/{ada.id}", admin),
    }
    meanwhile(monkeypatch, acts[act], "hashpw")
    refused = confirm(api, token, SLOW)
    assert (refused.status_code, refused.json["error"]["details"].keys()) == (422, {"token"})
    assert SLOW not in opens(api, ada)


def test_of_two_sign_ups_with_one_address_the_later_is_refused(api, monkeypatch):
    def sign_up(password):
        return api.post("/users", json={"email": "mary@example.com", "password": password, "name": "Mary"})

    inner = []
    meanwhile(monkeypatch, lambda: inner.append(sign_up(FAST).json["data"]), "hashpw")
    later = sign_up(SLOW)
    assert (later.status_code, later.json["error"]["details"].keys()) == (409, {"email"})
    assert api.post("/auth/login", json={"email": "mary@example.com", "password": FAST}).status_code == 200
