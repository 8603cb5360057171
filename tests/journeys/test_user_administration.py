"""Administration of users: roles, activity, deletion. One active admin always remains."""

import jwt
import pytest

from backend.infrastructure.ids import new_id
from tests.at_once import at_once
from tests.conftest import PASSWORD, UNKNOWN_ID


def refused(answer, status, code):
    return (answer.status_code, answer.json["error"]["code"]) == (status, code)


def seen(api, admin, user_id):
    return api.get(f"/users/{user_id}", admin).json["data"]


def log_in(api, email, password=PASSWORD):
    return api.post("/auth/login", json={"email": email, "password": password})


def test_an_admin_sees_and_changes_any_user(api, admin, ada):
    before = seen(api, admin, ada.id)
    assert before == api.get("/users/me", ada).json["data"]
    answer = api.patch(f"/users/{ada.id}", admin, {"name": "Countess", "email": "c@example.com", "roles": ["admin"]})
    assert answer.status_code == 200 and answer.headers["ETag"] == '"2"'
    after = answer.json["data"]
    changed = {"name": "Countess", "email": "c@example.com", "roles": ["admin"], "version": 2}
    assert after == seen(api, admin, ada.id) == {**before, **changed, "updatedAt": after["updatedAt"]}


@pytest.mark.parametrize("user_id", [UNKNOWN_ID, "not-an-id", "1", "A" * 36])
def test_an_admin_gets_404_for_an_absent_user(api, admin, user_id):
    path = f"/users/{user_id}"
    for answer in (api.get(path, admin), api.patch(path, admin, {"name": "N"}), api.delete(path, admin)):
        assert refused(answer, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"roles": []}, "roles"), ({"roles": ["root"]}, "roles[0]"), ({"roles": ["user", "user"]}, "roles[1]"),
        ({"roles": "admin"}, "roles"), ({"roles": None}, "roles"), ({"roles": ["user", 1]}, "roles[1]"),
        ({"active": "no"}, "active"), ({"active": 0}, "active"), ({"active": None}, "active"),
    ],
)  # fmt: skip
def test_wrong_roles_and_activity_are_named(api, admin, ada, changes, wrong):
    answer = api.patch(f"/users/{ada.id}", admin, changes)
    assert refused(answer, 422, "VALIDATION_ERROR") and answer.json["error"]["details"].keys() == {wrong}


def test_the_order_of_roles_does_not_matter(api, admin, ada):
    """Both orders are shown alike, and the second one is no change."""
    path = f"/users/{ada.id}"
    first = api.patch(path, admin, {"roles": ["user", "admin"]}).json["data"]
    again = api.patch(path, admin, {"roles": ["admin", "user"]}).json["data"]
    once_more = api.patch(path, admin, {"roles": ["user", "admin"]}).json["data"]
    assert first == again == once_more == seen(api, admin, ada.id)
    assert first["version"] == 2


def test_an_admins_change_to_the_same_values_raises_no_version(api, admin, ada):
    before = seen(api, admin, ada.id)
    for changes in ({"roles": ["user"]}, {"active": True}, {"roles": ["user"], "active": True, "name": "Ada"}):
        assert api.patch(f"/users/{ada.id}", admin, changes).json["data"] == before


def test_an_admin_can_give_up_the_role_while_there_is_another(api, admin):
    """By `/users/me` as well."""
    api.admin("Second")
    assert api.patch("/users/me", admin, {"roles": ["user"]}).json["data"]["roles"] == ["user"]
    assert refused(api.get("/users", admin), 403, "FORBIDDEN")


def last_admin_attempts(api, admin):
    yield "role, by the admin", lambda: api.patch("/users/me", admin, {"roles": ["user"]})
    yield "role", lambda: api.patch(f"/users/{admin.id}", admin, {"roles": ["user"], "name": "No more"})
    yield "active", lambda: api.patch(f"/users/{admin.id}", admin, {"active": False})
    yield "both", lambda: api.patch(f"/users/{admin.id}", admin, {"active": False, "roles": ["user"]})
    yield "deletion", lambda: api.delete(f"/users/{admin.id}", admin)


@pytest.mark.parametrize("others", ["none", "deactivated", "deleted", "demoted"])
def test_the_last_active_admin_remains_one(api, admin, others):
    """409 for the loss of the role, deactivation and deletion, and no effect; inactive admins do not count."""
    if others != "none":
        path = f"/users/{api.admin('Second').id}"
        changes = {"deactivated": {"active": False}, "demoted": {"roles": ["user"]}}
        answer = api.patch(path, admin, changes[others]) if others in changes else api.delete(path, admin)
        assert answer.status_code in (200, 204)
    before = seen(api, admin, admin.id)
    for what, attempt in last_admin_attempts(api, admin):
        assert refused(attempt(), 409, "CONFLICT"), what
    assert seen(api, admin, admin.id) == before
    assert api.patch(f"/users/{admin.id}", admin, {"name": "Still"}).status_code == 200


@pytest.mark.parametrize("number", range(5))
def test_two_admins_demoting_each_other_at_once_leave_one(api, admin, number):
    """One demotion succeeds.

    The other is refused, as the last admin's or because its caller is a plain user by then.
    """
    second = api.admin("Second")
    pairs = ((admin, second), (second, admin))
    demotion = {"active": False} if number % 2 else {"roles": ["user"]}
    answers = at_once([lambda by=by, whom=whom: api.patch(f"/users/{whom.id}", by, demotion) for by, whom in pairs])
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {answer.status_code for answer in answers} <= {200, 401, 403, 409}
    left = [by for (by, _), answer in zip(pairs, answers, strict=True) if answer.status_code == 200]
    assert api.get("/users?role=admin", left[0]).status_code == 200


@pytest.mark.parametrize("number", range(5))
def test_of_ten_admins_that_give_up_their_own_role_at_once_one_stays(api, admin, number):
    """Each changes another row, and counts on the others."""
    admins = [admin, *(api.admin(f"Admin{n}") for n in range(9))]
    gone = {"active": False} if number % 2 else {"roles": ["user"]}
    answers = at_once([lambda one=one: api.patch(f"/users/{one.id}", one, gone) for one in admins])
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [409]


def test_a_deactivated_user_is_locked_out_until_activated(api, admin, ada):
    """The logins end and stay ended; after the activation a new login succeeds."""
    api.patch(f"/users/{ada.id}", admin, {"active": False})
    assert refused(api.get("/users/me", ada), 401, "UNAUTHORIZED")
    assert refused(log_in(api, ada.email), 401, "UNAUTHORIZED")
    assert api.patch(f"/users/{ada.id}", admin, {"active": True}).json["data"]["version"] == 3
    assert refused(api.get("/users/me", ada), 401, "UNAUTHORIZED")
    assert api.post("/auth/refresh", json={"refreshToken": ada.refresh}).status_code == 401
    assert api.log_in(ada.email).id == ada.id


def test_only_admins_delete_users(api, admin, ada, grace):
    """Users cannot delete themselves either; 403 whether or not the user exists."""
    for user_id in (ada.id, grace.id, new_id(), "not-an-id"):
        assert refused(api.delete(f"/users/{user_id}", ada), 403, "FORBIDDEN")
    assert seen(api, admin, ada.id)["active"]


def test_a_deleted_user_is_anonymous_and_inactive(api, admin, ada):
    """204; an admin still sees the user, without name and address. Tokens and password no longer work."""
    answer = api.delete(f"/users/{ada.id}", admin)
    assert (answer.status_code, answer.data) == (204, b"")
    gone = seen(api, admin, ada.id)
    assert (gone["id"], gone["active"], gone["version"]) == (ada.id, False, 2)
    assert "ada" not in (gone["email"].replace(ada.id, "") + gone["name"]).lower()  # an id may hold any letters
    assert api.get(f"/users?q={ada.email}", admin).json["meta"]["pagination"]["total"] == 0
    assert refused(api.get("/users/me", ada), 401, "UNAUTHORIZED")
    assert api.post("/auth/refresh", json={"refreshToken": ada.refresh}).status_code == 401
    assert refused(log_in(api, ada.email), 401, "UNAUTHORIZED")


def test_a_second_deletion_changes_nothing(api, admin, ada, clock):
    api.delete(f"/users/{ada.id}", admin)
    gone = seen(api, admin, ada.id)
    clock.advance(60)
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204
    assert seen(api, admin, ada.id) == gone


ADDRESS, AGENT = "203.0.113.77", "An-Agent-That-Tells/9"


@pytest.fixture
def everywhere(api, admin, ada, grace, clock, outsider):
    """Ada has live, ended and expired logins and has used them; Grace has the same, from another address."""
    for _ in range(3):
        answers = [
            api.post("/auth/login", json={"email": person.email, "password": PASSWORD}, address=address,
                     headers={"User-Agent": agent})
            for person, address, agent in ((ada, ADDRESS, AGENT), (grace, "198.51.100.1", "Her-Agent/1"))
        ]  # fmt: skip
        tokens = [answer.json["data"]["refreshToken"] for answer in answers]
        api.post("/auth/logout", json={"refreshToken": tokens[0]})
    log_in_from = {"address": ADDRESS, "headers": {"User-Agent": AGENT}}
    api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}, **log_in_from)
    clock.advance(8 * 86_400)
    api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}, **log_in_from)
    return lambda text: [line for line in outsider.contents() if text.casefold() in line.casefold()]


def test_nothing_in_the_database_tells_where_a_deleted_user_was(api, ada, everywhere):
    """No address or agent of any login, ended and expired ones included, and no e-mail.

    Other users' logins keep theirs.
    """
    admin = api.log_in("root@example.com")
    assert len(everywhere(ADDRESS)) == len(everywhere(AGENT)) == 5
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204
    assert [everywhere(text) for text in (ADDRESS, AGENT, ada.email)] == [[], [], []]
    assert len(everywhere("Her-Agent/1")) == 3


def test_the_deletion_of_a_user_with_many_logins_takes_many_transactions(api, admin, ada, everywhere, monkeypatch):
    """Each of bounded size, so other writers wait no longer for it than for any other."""
    logins, sizes = 2345, []
    with api.app.database.transaction() as tx:
        columns = "user_id, token_version, user_agent, ip, network, created_at, last_used_at, expires_at, ended_at"
        tx.run_each(
            f"INSERT INTO sessions (id, {columns}) SELECT :id, {columns} FROM sessions WHERE ip = :ip LIMIT 1",
            ({"id": new_id(), "ip": ADDRESS} for _ in range(logins)),
        )
        kind = type(tx)
    run = kind.run

    def counted(tx, sql, **parameters):
        changed = run(tx, sql, **parameters)
        sizes.append(changed)
        return changed

    monkeypatch.setattr(kind, "run", counted)
    assert api.delete(f"/users/{ada.id}", api.log_in("root@example.com")).status_code == 204
    assert everywhere(ADDRESS) == everywhere(AGENT) == []
    assert sum(sizes) > logins and max(sizes) <= 1000


def test_a_deletion_that_was_cut_short_is_completed_by_the_next(api, admin, ada, everywhere, outsider):
    """The user is deleted, but some logins still have an address, as after a kill in between."""
    admin = api.log_in("root@example.com")
    api.delete(f"/users/{ada.id}", admin)
    outsider.rows("UPDATE sessions SET ip = :ip WHERE user_id = :id", ip=ADDRESS, id=ada.id)
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204
    assert everywhere(ADDRESS) == []


def test_the_address_of_a_deleted_user_can_be_registered_again(api, admin, ada):
    """By a new user, with none of the former user's data."""
    api.account(ada)
    api.delete(f"/users/{ada.id}", admin)
    newcomer = api.sign_up("Ada")
    assert newcomer.id != ada.id
    assert api.get("/accounts", newcomer).json["data"] == []
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204
    assert api.get("/users/me", newcomer).json["data"]["name"] == "Ada"


def test_no_user_can_prevent_the_deletion_of_another(api, admin, ada, grace):
    """Not by taking the address that the other one will get when deleted."""
    api.delete(f"/users/{grace.id}", admin)
    hers = seen(api, admin, grace.id)["email"].replace(grace.id, ada.id)
    api.post("/users", json={"email": hers, "password": PASSWORD, "name": "Squatter"})
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204


def test_a_deleted_user_who_is_activated_has_no_password(api, admin, ada):
    """A login is 401, not 500."""
    api.delete(f"/users/{ada.id}", admin)
    api.patch(f"/users/{ada.id}", admin, {"active": True, "email": "back@example.com"})
    assert refused(log_in(api, "back@example.com"), 401, "UNAUTHORIZED")
    assert refused(log_in(api, "back@example.com", "!"), 401, "UNAUTHORIZED")


def test_ledger_and_orders_of_a_deleted_user_stay(api, admin, ada):
    account = api.account(ada, balance=1000, admin=admin)
    items = [{"productId": api.product(admin), "quantity": 1}]
    order = api.post("/orders", ada, {"accountId": account, "items": items}).json["data"]
    statement = api.get(f"/accounts/{account}/transactions", ada).json["data"]
    api.delete(f"/users/{ada.id}", admin)
    assert api.get(f"/orders/{order['id']}", admin).json["data"] == order
    assert api.get(f"/accounts/{account}/transactions", admin).json["data"] == statement
    assert api.balance(account, admin) == 750
    by_id = {user["id"]: user["orders"] for user in api.get("/users?include=orders", admin).json["data"]}
    assert by_id[ada.id] == [order]


def test_a_deletion_honours_if_match(api, admin, ada):
    """412 for another version and for a weak tag."""
    for tag in ('"2"', 'W/"1"'):
        answer = api.delete(f"/users/{ada.id}", admin, headers={"If-Match": tag})
        assert refused(answer, 412, "PRECONDITION_FAILED")
    assert api.delete(f"/users/{ada.id}", admin, headers={"If-Match": '"1"'}, json={}).status_code == 204


def test_of_an_admins_changes_only_a_deactivation_raises_the_token_version(api, admin, ada):
    """By one, as `ver` of the next login shows."""

    def version_of_tokens():
        return jwt.decode(api.log_in(ada.email).access, options={"verify_signature": False})["ver"]

    before = version_of_tokens()
    for changes in ({"name": "Other"}, {"roles": ["admin", "user"]}, {"active": True}):
        assert api.patch(f"/users/{ada.id}", admin, changes).status_code == 200
    assert version_of_tokens() == before
    for active in (False, True):
        assert api.patch(f"/users/{ada.id}", admin, {"active": active}).status_code == 200
    assert version_of_tokens() == before + 1


def test_granting_the_admin_role_again_changes_nothing(api, app, admin):
    """No new version, no event."""
    before = api.get(f"/users/{admin.id}", admin).json["data"]
    with app.database.transaction() as tx:
        events = "SELECT count(*) FROM outbox"
        count = tx.row(events)
        app.users.grant_admin(tx, admin.id)
        assert tx.row(events) == count
    assert api.get(f"/users/{admin.id}", admin).json["data"] == before
