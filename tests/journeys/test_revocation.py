"""Changes that take effect on the next request, on every worker, although access tokens are JWTs.

Two applications over one file, each with a cache of its own, stand for two workers. The second one has cached Ada
before the first makes the change, so a stale cache would be visible.
"""

from dataclasses import dataclass

import bcrypt
import jwt
import pytest

from tests.answers import reason
from tests.at_once import at_once
from tests.conftest import PASSWORD, Person
from tests.mailbox import Mailbox

NEW = "another good password"


@pytest.fixture
def first(make_api):
    return make_api()


@pytest.fixture
def second(make_api):
    return make_api()


@dataclass(frozen=True)
class People:
    """Ada is logged in twice, the second time on her `device`."""

    admin: Person
    ada: Person
    device: Person
    mailbox: Mailbox


@pytest.fixture
def people(first, second, settings):
    """The users, after both applications have answered all of them."""
    admin, ada = first.admin(), first.sign_up("Ada")
    device = first.log_in(ada.email)
    for worker in (first, second):
        for person in (admin, ada, device):
            assert worker.get("/users/me", person).status_code == 200
    return People(admin, ada, device, Mailbox(settings.database_path.parent / "outbox"))


def sid(person):
    return jwt.decode(person.access, options={"verify_signature": False})["sid"]


CHANGE = {"currentPassword": PASSWORD, "newPassword": NEW}


def deactivate(api, people):
    return api.patch(f"/users/{people.ada.id}", people.admin, {"active": False})


def delete(api, people):
    return api.delete(f"/users/{people.ada.id}", people.admin)


def reset(api, people):
    token = people.mailbox.reset_token(api, people.ada.email)
    return api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": NEW})


ACTS = {  # what ends one of Ada's logins
    "deactivation": deactivate,
    "deletion": delete,
    "password reset": reset,
    "password change elsewhere": lambda api, people: api.post("/auth/password", people.device, CHANGE),
    "logout": lambda api, people: api.post("/auth/logout", json={"refreshToken": people.ada.refresh}),
    "end of the session": lambda api, people: api.delete(f"/auth/sessions/{sid(people.ada)}", people.device),
    "end of all sessions": lambda api, people: api.delete("/auth/sessions", people.device),
}


@pytest.mark.parametrize("act", ACTS)
def test_the_next_request_to_any_worker_is_refused(first, second, people, act):
    """401 `revoked` for the access token, on public routes too, and for the refresh token."""
    admin, ada = people.admin, people.ada
    assert ACTS[act](first, people).status_code in (200, 204)
    for worker in (second, first):
        assert reason(worker.get("/users/me", ada)) == "revoked"
        assert reason(worker.get("/products", ada)) == "revoked"
        assert reason(worker.post("/auth/refresh", json={"refreshToken": ada.refresh})) == "revoked"
        assert worker.get("/users/me", admin).status_code == 200


def test_a_reused_refresh_token_ends_the_login_for_every_worker(first, second, people, clock):
    ada, device = people.ada, people.device
    pair = first.post("/auth/refresh", json={"refreshToken": ada.refresh}).json["data"]
    clock.advance(11)
    assert reason(first.post("/auth/refresh", json={"refreshToken": ada.refresh})) == "revoked"
    for token in (ada.access, pair["accessToken"]):
        assert reason(second.get("/users/me", headers={"Authorization": f"Bearer {token}"})) == "revoked"
    assert second.get("/users/me", device).status_code == 200


def test_new_roles_apply_at_once_and_end_no_login(first, second, people):
    """Given, they admit the existing token to admin routes on the other worker; taken, they no longer do."""
    admin, ada = people.admin, people.ada
    for roles, status in ((["admin", "user"], 200), (["user"], 403)):
        assert first.patch(f"/users/{ada.id}", admin, {"roles": roles}).status_code == 200
        assert second.get("/users", ada).status_code == first.get("/users", ada).status_code == status
        assert second.get("/users/me", ada).json["data"]["roles"] == roles


def test_a_new_name_shows_at_once(first, second, people):
    admin, ada = people.admin, people.ada
    first.patch("/users/me", ada, {"name": "Countess"})
    assert second.get("/users/me", ada).json["data"]["name"] == "Countess"
    assert second.get(f"/users/{ada.id}", admin).headers["ETag"] == '"2"'


DURING = {  # what happens to Ada, by way of another worker, while her old password is being checked
    "change": lambda api, people: api.post("/auth/password", people.ada, CHANGE),
    "reset": reset,
    "deactivation": deactivate,
    "deletion": delete,
}


@pytest.mark.parametrize("act", DURING)
def test_a_login_fails_if_the_user_changes_while_its_password_is_checked(first, second, people, monkeypatch, act):
    """What another worker commits while bcrypt runs counts: 401, and no session with the old password."""
    ada = people.ada
    checkpw = bcrypt.checkpw

    def slow(password, hashed):
        good = checkpw(password, hashed)
        monkeypatch.setattr(bcrypt, "checkpw", checkpw)
        assert DURING[act](second, people).status_code in (200, 204)
        return good

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    assert reason(first.post("/auth/login", json={"email": ada.email, "password": PASSWORD})) == "credentials"
    with first.app.database.snapshot() as tx:
        live = tx.rows("SELECT id FROM sessions WHERE user_id = :id AND ended_at IS NULL", id=ada.id)
    assert live == ([(sid(ada),)] if act == "change" else [])


@pytest.mark.parametrize("round_", range(3))
def test_logins_racing_a_password_change_leave_no_session_of_the_old_password(first, second, people, round_):
    """Each login at the same moment is either ended by the change or fails."""
    ada = people.ada
    login = {"email": ada.email, "password": PASSWORD}
    answers = at_once([
        lambda: second.post("/auth/password", ada, CHANGE),
        *[lambda worker=worker: worker.post("/auth/login", json=login) for worker in (first, second) * 2],
    ])  # fmt: skip
    assert answers[0].status_code == 204
    for answer in answers[1:]:
        assert answer.status_code in (200, 401, 503)
        if answer.status_code == 200:
            bearer = {"Authorization": f"Bearer {answer.json['data']['accessToken']}"}
            assert reason(first.get("/users/me", headers=bearer)) == "revoked"
    assert [session["current"] for session in second.get("/auth/sessions", ada).json["data"]] == [True]


@pytest.mark.parametrize("round_", range(5))
def test_no_grant_of_an_admin_is_committed_after_the_loss_of_the_role(first, second, people, round_):
    """Ten grants race the demotion over two workers: each later one is answered 403 and grants nothing."""
    admin, deputy = people.admin, first.admin("Deputy")
    friends = [first.sign_up(f"Friend{n}") for n in range(10)]
    answers = at_once([
        lambda: first.patch(f"/users/{deputy.id}", admin, {"roles": ["user"]}),
        *[
            lambda worker=worker, friend=friend: worker.patch(f"/users/{friend.id}", deputy, {"roles": ["admin"]})
            for worker, friend in zip((first, second) * 5, friends, strict=True)
        ],
    ])  # fmt: skip
    assert [answers[0].status_code, {answer.status_code for answer in answers[1:]} <= {200, 403}] == [200, True]
    with first.app.database.snapshot() as tx:
        done = tx.rows("SELECT user_id, resource_id FROM outbox WHERE name = 'user.updated' ORDER BY seq")
    later = done[done.index((admin.id, deputy.id)) + 1 :]
    assert deputy.id not in [by for by, _ in later]
    for friend, answer in zip(friends, answers[1:], strict=True):
        roles = first.get(f"/users/{friend.id}", admin).json["data"]["roles"]
        assert roles == (["admin"] if answer.status_code == 200 else ["user"])
