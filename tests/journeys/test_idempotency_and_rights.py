"""Idempotency keys and rights: a user without the right to a request gets no replay of it either."""

from tests.answers import error_of


def test_a_replay_needs_a_good_token(api, ada, grace, admin):
    """401 without one, after the logout and after the deactivation."""
    body = {"currency": "EUR"}
    for person in (ada, grace):
        assert api.post("/accounts", person, body, key="k").status_code == 201
    api.post("/auth/logout", json={"refreshToken": ada.refresh})
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    for person in (None, ada, grace):
        assert error_of(api.post("/accounts", person, body, key="k")) == (401, "UNAUTHORIZED")


def test_a_replay_needs_the_role_that_its_route_needs(api, ada, admin):
    """403 for a deposit, a withdrawal and a fulfilment without the admin role; a replay once it is given back."""
    deputy = api.admin("Deputy")
    account = api.account(ada, balance=10, admin=admin)
    order = {"accountId": account, "items": [{"productId": api.product(admin, price=1), "quantity": 1}]}
    order_id = api.post("/orders", ada, order).json["data"]["id"]
    requests = [
        (f"/accounts/{account}/deposits", {"amount": 1}),
        (f"/accounts/{account}/withdrawals", {"amount": 1}),
        (f"/orders/{order_id}/fulfil", None),
    ]
    firsts = [api.post(path, deputy, body, key=f"{n}") for n, (path, body) in enumerate(requests)]
    assert [first.status_code for first in firsts] == [201, 201, 200]
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user"]})
    for n, (path, body) in enumerate(requests):
        assert error_of(api.post(path, deputy, body, key=f"{n}")) == (403, "FORBIDDEN")
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user", "admin"]})
    for n, ((path, body), first) in enumerate(zip(requests, firsts, strict=True)):
        again = api.post(path, deputy, body, key=f"{n}")
        assert again.json["data"] == first.json["data"]
        assert again.headers["Idempotency-Replayed"] == "true"


def test_a_replay_needs_the_right_to_see_the_resource(api, ada, admin):
    """404: a former admin who cancelled a user's order can no longer see that order."""
    deputy = api.admin("Deputy")
    account = api.account(ada, balance=10, admin=admin)
    order = {"accountId": account, "items": [{"productId": api.product(admin, price=1), "quantity": 1}]}
    cancel = f"/orders/{api.post('/orders', ada, order).json['data']['id']}/cancel"
    assert api.post(cancel, deputy, key="k").status_code == 200
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user"]})
    assert error_of(api.post(cancel, deputy, key="k")) == (404, "NOT_FOUND")


def test_rights_are_checked_before_the_key(api, ada, admin):
    """401, 403 and 404 even though the key is invalid."""
    account = api.account(ada)
    bad = {"environ_overrides": {"HTTP_IDEMPOTENCY_KEY": ","}}
    deposits = f"/accounts/{account}/deposits"
    assert error_of(api.post(deposits, None, {"amount": 1}, **bad)) == (401, "UNAUTHORIZED")
    assert error_of(api.post(deposits, ada, {"amount": 1}, **bad)) == (403, "FORBIDDEN")
    absent = deposits.replace(account, account[:-1] + ("0" if account[-1] != "0" else "1"))
    assert error_of(api.post(absent, admin, {"amount": 1}, **bad)) == (404, "NOT_FOUND")


def test_another_users_key_reveals_nothing(api, ada, grace, admin):
    """Key and body of another user's transfer give the same answer as without the key: 404."""
    purse, other = api.account(ada, balance=10, admin=admin), api.account(grace)
    body = {"fromAccountId": purse, "toAccountId": other, "amount": 5}
    assert api.post("/transfers", ada, body, key="k").status_code == 201
    assert error_of(api.post("/transfers", grace, body, key="k")) == (404, "NOT_FOUND")
    assert error_of(api.post("/transfers", admin, body, key="k")) == (404, "NOT_FOUND")
