"""Changing an e-mail address: the user's own needs the current password, which a thief of a token does not have."""

import bcrypt
import pytest

from backend.services import users
from tests.conftest import PASSWORD
from tests.meanwhile import meanwhile

NEW = "countess@example.com"
OWN_PATHS = ("/users/me", "/users/{id}")


@pytest.fixture
def runs(monkeypatch):
    """Every bcrypt run from here on."""
    seen = []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(bcrypt, name, lambda *given, run=run: seen.append(given) or run(*given))
    return seen


def change(api, person, path="/users/me", email=NEW, **more):
    return api.patch(path.format(id=person.id), person, {"email": email, **more})


def email_of(api, person):
    return api.get("/users/me", person).json["data"]["email"]


def details(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json["error"]["details"]


@pytest.mark.parametrize("caller", ["ada", "admin"])
@pytest.mark.parametrize("path", OWN_PATHS)
def test_a_users_own_address_changes_only_with_the_current_password(api, request, caller, path):
    """422 without it, 401 `credentials` with a wrong one, for admins too; the other fields do not change either."""
    person = request.getfixturevalue(caller)
    assert details(change(api, person, path, name="New"), 422).keys() == {"currentPassword"}
    for wrong in ("a wrong password", PASSWORD.upper(), f"{PASSWORD} "):
        answer = change(api, person, path, name="New", currentPassword=wrong)
        assert details(answer, 401) == {"reason": "credentials"}
    before = api.get("/users/me", person).json["data"]
    assert (before["email"], before["version"]) == (person.email, 1 if caller == "ada" else 2)
    answer = change(api, person, path, name="New", currentPassword=PASSWORD)
    assert (answer.status_code, answer.json["data"]["email"], answer.json["data"]["name"]) == (200, NEW, "New")


def test_a_wrong_current_password_is_one_line_in_the_log_with_the_users_id(api, ada, caplog):
    """For a change of the e-mail and of the password."""
    assert change(api, ada, currentPassword="typed here").status_code == 401
    body = {"currentPassword": "typed here", "newPassword": "another good one"}
    assert api.post("/auth/password", ada, body).status_code == 401
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"wrong current password: user {ada.id}"] * 2


def test_a_change_of_case_alone_needs_the_password_too(api, ada):
    assert details(change(api, ada, email="ADA@example.com"), 422).keys() == {"currentPassword"}
    assert change(api, ada, email="ADA@example.com", currentPassword=PASSWORD).status_code == 200
    assert email_of(api, ada) == "ADA@example.com"


@pytest.mark.parametrize("changes", [{"name": "New"}, {"email": "ada@example.com"}, {}])
def test_without_a_change_of_address_no_password_is_needed_or_checked(api, ada, runs, changes):
    """A wrong one is ignored; otherwise passwords could be guessed here."""
    for password in ({}, {"currentPassword": "a wrong password"}):
        assert api.patch("/users/me", ada, {**changes, **password}).status_code == 200
    assert runs == []


def test_an_admin_changes_another_users_address_without_a_password(api, admin, ada, runs):
    answers = [
        api.patch(f"/users/{ada.id}", admin, {"email": NEW}),
        api.patch(f"/users/{ada.id}", admin, {"email": ada.email, "currentPassword": "a wrong password"}),
    ]
    assert [answer.json["data"]["email"] for answer in answers] == [NEW, ada.email]
    assert runs == []


@pytest.mark.parametrize("password", ["", None, 5, "x" * 257, "nul\0"])
def test_an_invalid_password_is_named_with_all_other_wrong_fields(api, ada, runs, password):
    answer = change(api, ada, email="nobody", currentPassword=password)
    assert details(answer, 422).keys() == {"email", "currentPassword"}
    assert runs == []


def test_a_refused_change_of_rights_costs_no_bcrypt(api, ada, runs):
    assert change(api, ada, currentPassword=PASSWORD, roles=["admin"]).status_code == 403
    assert runs == []


@pytest.mark.parametrize("path", OWN_PATHS)
@pytest.mark.parametrize("act", ["logout", "change", "deactivation"])
def test_a_change_is_refused_if_its_right_ends_while_the_password_is_checked(api, admin, ada, monkeypatch, path, act):
    """By logout, a password change from another login, deactivation: the address stays."""
    device, new = api.log_in(ada.email), "another good password"
    acts = {
        "logout": lambda: api.post("/auth/logout", json={"refreshToken": ada.refresh}),
        "change": lambda: api.post("/auth/password", device, {"currentPassword": PASSWORD, "newPassword": new}),
        "deactivation": lambda: api.patch(f"/users/{ada.id}", admin, {"active": False}),
    }
    done = []
    meanwhile(monkeypatch, lambda: done.append(acts[act]().status_code))
    assert details(change(api, ada, path, currentPassword=PASSWORD), 401) == {"reason": "revoked"}
    assert done in ([200], [204])
    assert api.get(f"/users/{ada.id}", admin).json["data"]["email"] == ada.email


def test_an_address_that_another_request_changes_is_not_changed_back_without_a_password(api, ada, monkeypatch):
    """A value that was no change when the request arrived is one when it is written."""
    decide = users.changes_own_email

    def interrupted(*given):
        monkeypatch.setattr(users, "changes_own_email", decide)
        decision = decide(*given)
        assert change(api, ada, currentPassword=PASSWORD).status_code == 200
        return decision

    monkeypatch.setattr(users, "changes_own_email", interrupted)
    assert details(change(api, ada, email=ada.email), 422).keys() == {"currentPassword"}
    assert email_of(api, ada) == NEW
