"""Rights hold at the commit: every writing route × every right that its caller can lose before the write lock."""

from collections.abc import Callable

import jwt
import pytest

from backend.web.router import ADMIN, ANYONE, SELF_OR_ADMIN
from tests.conftest import PASSWORD, Api, Person
from tests.every_route import API, VALID, World, send
from tests.meanwhile import before_the_write

WRITES = sorted(key for key in VALID if not key.startswith("GET ") and VALID[key].access is not ANYONE)
BY_THE_ROLE = sorted(key for key in WRITES if VALID[key].access in (ADMIN, SELF_OR_ADMIN))


@pytest.fixture
def deputy(api) -> Person:
    """An admin that takes the caller's rights away."""
    api.app.relay.stop()  # so only requests write
    return api.admin("Deputy")


def caller_of(world: World, key: str) -> Person:
    return world.people["admin" if VALID[key].access is ADMIN else "owner"]


def log_in(api: Api, person: Person) -> Person:
    return api.log_in(person.email)


def session_of(person: Person) -> str:
    return str(jwt.decode(person.access, options={"verify_signature": False})["sid"])


def change(api: Api, sql: str, caller: Person) -> None:
    with api.app.database.transaction() as tx:
        assert tx.run(sql, id=caller.id) > 0


LOSSES: dict[str, Callable[[Api, Person, Person], object]] = {
    "logout": lambda api, caller, _: api.post("/auth/logout", json={"refreshToken": caller.refresh}),
    "the session is ended elsewhere": lambda api, caller, _: api.delete(
        f"/auth/sessions/{session_of(caller)}", log_in(api, caller)
    ),
    "all sessions are ended": lambda api, caller, _: api.delete("/auth/sessions", log_in(api, caller)),
    "the password is changed elsewhere": lambda api, caller, _: api.post(
        "/auth/password", log_in(api, caller), {"currentPassword": PASSWORD, "newPassword": "yet another good one"}
    ),
    "deactivation": lambda api, caller, deputy: api.patch(f"/users/{caller.id}", deputy, {"active": False}),
    "deactivation and back": lambda api, caller, deputy: [
        api.patch(f"/users/{caller.id}", deputy, {"active": active}) for active in (False, True)
    ],
    "deletion": lambda api, caller, deputy: api.delete(f"/users/{caller.id}", deputy),
    "expiry": lambda api, caller, _: change(
        api, "UPDATE sessions SET expires_at = created_at WHERE user_id = :id", caller
    ),
    "deactivation that leaves the session": lambda api, caller, _: change(
        api, "UPDATE users SET active = 0 WHERE id = :id", caller
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("key", WRITES)
def test_a_write_without_a_live_login_and_an_active_user_is_refused(
    api, world, deputy, outsider, monkeypatch, key, loss
):
    """401 `revoked`, although the request was authenticated before; nothing is written."""
    caller, after_the_loss = caller_of(world, key), []

    def lose() -> None:
        LOSSES[loss](api, caller, deputy)
        after_the_loss.append(outsider.contents())

    before_the_write(monkeypatch, lose)
    answer = send(api, world, key, caller)
    assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "revoked"})
    assert after_the_loss == [outsider.contents()]


@pytest.mark.parametrize("key", BY_THE_ROLE)
def test_a_write_that_the_admin_role_admitted_is_refused_once_the_role_is_gone(
    api, world, deputy, outsider, monkeypatch, key
):
    """403; nothing is written."""
    admin, after_the_loss = world.people["admin"], []

    def demote() -> None:
        assert api.patch(f"/users/{admin.id}", deputy, {"roles": ["user"]}).status_code == 200
        after_the_loss.append(outsider.contents())

    before_the_write(monkeypatch, demote)
    answer = send(api, world, key, admin)
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "FORBIDDEN")
    assert after_the_loss == [outsider.contents()]


@pytest.mark.parametrize("path", ["/users/me", "/users/$admin"])
@pytest.mark.parametrize(
    ("changes", "status"), [({"name": "N"}, 200), ({"roles": ["admin"]}, 403), ({"active": True}, 403)]
)
def test_what_needs_no_role_is_done_without_it(api, world, deputy, monkeypatch, path, changes, status):
    """A caller that loses the admin role during the request can still change its own name, but no roles."""
    admin = world.people["admin"]
    before_the_write(monkeypatch, lambda: api.patch(f"/users/{admin.id}", deputy, {"roles": ["user"]}))
    assert api.patch(world.filled(path), admin, changes).status_code == status
    assert api.get("/users/me", admin).json["data"]["roles"] == ["user"]


def test_another_users_order_is_not_found_once_the_role_is_gone(api, world, deputy, monkeypatch):
    admin = world.people["admin"]
    before_the_write(monkeypatch, lambda: api.patch(f"/users/{admin.id}", deputy, {"roles": ["user"]}))
    assert send(api, world, f"POST {API}/orders/{{id}}/cancel", admin).status_code == 404
    assert api.get(world.filled("/orders/$order"), deputy).json["data"]["status"] == "placed"


def test_an_answer_is_not_replayed_to_a_caller_that_lost_the_role_meanwhile(api, world, deputy, monkeypatch):
    admin, deposit = world.people["admin"], f"POST {API}/accounts/{{id}}/deposits"
    once = {"headers": {"Idempotency-Key": "k"}}
    assert send(api, world, deposit, admin, **once).status_code == 201
    before_the_write(monkeypatch, lambda: api.patch(f"/users/{admin.id}", deputy, {"roles": ["user"]}))
    assert send(api, world, deposit, admin, **once).status_code == 403


def test_of_three_admins_two_that_demote_each_other_at_once_leave_one_of_the_two(api, world, deputy, monkeypatch):
    """The later one is refused for the lost role, not because the last admin must stay: a third remains."""
    admin = world.people["admin"]
    third = api.admin("Third")
    before_the_write(monkeypatch, lambda: api.patch(f"/users/{admin.id}", third, {"roles": ["user"]}))
    assert api.patch(f"/users/{third.id}", admin, {"roles": ["user"]}).status_code == 403
    roles = [api.get(f"/users/{person.id}", deputy).json["data"]["roles"] for person in (admin, third)]
    assert roles == [["user"], ["admin", "user"]]
