"""The audit log: actor, action, resource, request and time of every event."""

import pytest

from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.waiting import wait_until


def rows(api, admin, query=""):
    answer = api.get(f"/audit{query}", admin)
    assert answer.status_code == 200, answer.text
    return answer.json["data"]


def owed(api):
    with api.app.database.snapshot() as tx:
        return tx.rows("SELECT 1 FROM deliveries WHERE subscriber IN ('audit', 'resets')")  # which makes events


def settled(api, admin, query=""):
    """The rows, once every event so far has one."""
    wait_until(lambda: not owed(api))
    return rows(api, admin, query)


def test_a_row_has_actor_action_resource_request_and_time(api, admin, ada, clock):
    answer = api.post("/accounts", ada, {"currency": "EUR"}, headers={"X-Request-ID": "request-of-ada"})
    account = answer.json["data"]
    (row,) = settled(api, admin, "?action=account.created")
    assert row == {
        "id": row["id"], "userId": ada.id, "action": "account.created", "resourceType": "account",
        "resourceId": account["id"], "requestId": "request-of-ada", "createdAt": account["createdAt"],
    }  # fmt: skip


def test_every_event_has_one_row_newest_first(api, admin, ada):
    """In the order of the events."""
    account, product = api.account(ada, balance=1000, admin=admin), api.product(admin)
    order = api.post("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 2}]})
    api.post(f"/orders/{order.json['data']['id']}/cancel", ada)
    api.post("/auth/logout", json={"refreshToken": ada.refresh})
    told = [(row["userId"], row["action"]) for row in settled(api, admin)]
    assert told[::-1] == [
        (admin.id, "user.created"), (admin.id, "session.created"), (None, "user.updated"),
        (ada.id, "user.created"), (ada.id, "session.created"), (ada.id, "account.created"),
        (admin.id, "deposit.completed"), (admin.id, "product.created"), (ada.id, "payment.completed"),
        (ada.id, "order.placed"), (ada.id, "order.cancelled"), (ada.id, "refund.completed"), (ada.id, "session.ended"),
    ]  # fmt: skip


def test_a_change_and_a_reset_of_a_password_have_rows(api, admin, ada, settings):
    """One each, with the user as the actor; a refused one has none."""
    change = {"currentPassword": PASSWORD, "newPassword": "another good one"}
    assert [api.post("/auth/password", ada, change).status_code for _ in range(2)] == [204, 401]
    token = Mailbox(settings.database_path.parent / "outbox").reset_token(api, ada.email)
    body = {"token": token, "newPassword": "a third good one"}
    assert [api.post("/auth/password-reset/confirm", json=body).status_code for _ in range(2)] == [204, 422]
    told = [row for row in settled(api, admin) if row["action"].startswith("password.")]
    assert [row["action"] for row in told] == ["password.reset", "password.reset_requested", "password.changed"]
    for row in told:
        assert (row["userId"], row["resourceType"], row["resourceId"]) == (ada.id, "user", ada.id)


def test_only_a_reset_of_an_active_user_has_a_row(api, admin, ada, grace):
    """A request for an unknown or deactivated user gets the same answer and is no event."""
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    for email in (grace.email, "nobody@example.com", ada.email):
        request = {"X-Request-ID": f"request-{email}".replace("@", "-at-")}
        assert api.post("/auth/password-reset", json={"email": email}, headers=request).status_code == 202
    (row,) = settled(api, admin, "?action=password.reset_requested")
    assert (row["resourceId"], row["requestId"]) == (ada.id, "request-ada-at-example.com")


def test_what_has_no_effect_has_no_row(api, admin, ada):
    """A refused request, a replay, a read."""
    body = {"currency": "EUR"}
    api.post("/accounts", ada, {"currency": "nothing"})
    for _ in range(2):
        assert api.post("/accounts", ada, body, key="once").status_code == 201
    api.get("/accounts", ada)
    assert len(settled(api, admin, f"?userId={ada.id}&action=account.created")) == 1


def test_an_event_that_is_delivered_again_makes_no_second_row(api, admin, ada):
    """Delivery is at least once. The test acts as if the process was killed before it could settle."""
    before = settled(api, admin)
    with api.app.database.transaction() as tx:
        tx.run("INSERT INTO deliveries (seq, subscriber, tries, due_at) SELECT seq, 'audit', 0, 0 FROM outbox")
    api.post("/accounts", ada, {"currency": "EUR"})
    after = settled(api, admin)
    assert (after[1:], len(after)) == (before, len(before) + 1)


def test_the_log_can_be_filtered_by_actor_and_by_action(api, admin, ada, grace):
    for person in (ada, ada, grace):
        api.post("/accounts", person, {"currency": "EUR"})
    settled(api, admin)
    assert len(rows(api, admin, "?action=account.created")) == 3
    assert {row["userId"] for row in rows(api, admin, f"?userId={ada.id}")} == {ada.id}
    assert len(rows(api, admin, f"?userId={ada.id}&action=account.created")) == 2
    assert rows(api, admin, "?action=no.such") == []
    assert rows(api, admin, "?userId=01900000-0000-7000-8000-000000000000") == []


def test_the_log_is_read_page_by_page(api, admin, ada):
    """Each row appears once, although more are written meanwhile. A cursor is bound to its filter."""
    for _ in range(7):
        api.post("/accounts", ada, {"currency": "EUR"})
    wanted = [row["id"] for row in settled(api, admin, "?action=account.created")]
    seen, cursor = [], ""
    while cursor is not None:
        answer = api.get(f"/audit?action=account.created&limit=3{cursor}", admin)
        seen += [row["id"] for row in answer.json["data"]]
        following = answer.json["meta"]["pagination"]["nextCursor"]
        cursor = f"&cursor={following}" if following else None
        api.post("/accounts", ada, {"currency": "EUR"})
        wait_until(lambda: not owed(api))
    assert seen == wanted
    stolen = api.get("/audit?limit=1", admin).json["meta"]["pagination"]["nextCursor"]
    answer = api.get(f"/audit?action=account.created&cursor={stolen}", admin)
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["cursor"])


def test_only_admins_read_it(api, ada):
    assert api.get("/audit", ada).status_code == 403
    assert api.get("/audit?userId=nobody", ada).status_code == 403
    assert api.get("/audit").status_code == 401


@pytest.mark.parametrize(
    "wrong", ["userId=me", "action=", f"action={'x' * 101}", "limit=0", "from=now", "action=a&action=b"]
)
def test_a_wrong_parameter_is_named(api, admin, wrong):
    answer = api.get(f"/audit?{wrong}", admin)
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, [wrong.partition("=")[0]])


def test_the_log_holds_no_secrets(api, admin, ada):
    api.post("/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": "another pass phrase"})
    api.post("/auth/password-reset", json={"email": ada.email})
    told = str(settled(api, admin))
    for secret in (PASSWORD, "another pass phrase", ada.email, ada.access, ada.refresh):
        assert secret not in told
