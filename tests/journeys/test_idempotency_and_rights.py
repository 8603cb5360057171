"""Idempotency keys and rights: whoever has lost the right to a request has lost it to its replay."""


def refusal(answer):
    return answer.status_code, answer.json["error"]["code"]


def test_a_replay_needs_a_good_token(api, ada, grace, admin):
    """401 without one, after logging out and once deactivated."""
    body = {"currency": "EUR"}
    for person in (ada, grace):
        assert api.post("/accounts", person, body, key="k").status_code == 201
    api.post("/auth/logout", json={"refreshToken": ada.refresh})
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    for person in (None, ada, grace):
        assert refusal(api.post("/accounts", person, body, key="k")) == (401, "UNAUTHORIZED")


def test_a_replay_needs_the_role_that_its_route_needs(api, ada, admin):
    """403 for a deposit, a withdrawal and a fulfilment of who is no admin any more; a replay again once he is."""
    deputy = api.admin("Deputy")
    account = api.account(ada, balance=10, admin=admin)
    order = {"accountId": account, "items": [{"productId": api.product(admin, price=1), "quantity": 1}]}
    order_id = api.post("/orders", ada, order).json["data"]["id"]
    requests = [
        (f"/accounts/{account}/deposits", {"amount": 1}), (f"/accounts/{account}/withdrawals", {"amount": 1}),
        (f"/orders/{order_id}/fulfil", None),
    ]  # fmt: skip
    firsts = [api.post(path, deputy, body, key=f"{n}") for n, (path, body) in enumerate(requests)]
    assert [first.status_code for first in firsts] == [201, 201, 200]
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user"]})
    for n, (path, body) in enumerate(requests):
        assert refusal(api.post(path, deputy, body, key=f"{n}")) == (403, "FORBIDDEN")
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user", "admin"]})
    for n, ((path, body), first) in enumerate(zip(requests, firsts, strict=True)):
        again = api.post(path, deputy, body, key=f"{n}")
        assert again.json["data"] == first.json["data"]
        assert again.headers["Idempotency-Replayed"] == "true"


def test_a_replay_needs_to_see_what_it_is_about(api, ada, admin):
    """404: who was an admin cancelled a user's order, which now does not exist to him."""
    deputy = api.admin("Deputy")
    account = api.account(ada, balance=10, admin=admin)
    order = {"accountId": account, "items": [{"productId": api.product(admin, price=1), "quantity": 1}]}
    cancel = f"/orders/{api.post('/orders', ada, order).json['data']['id']}/cancel"
    assert api.post(cancel, deputy, key="k").status_code == 200
    api.patch(f"/users/{deputy.id}", admin, {"roles": ["user"]})
    assert refusal(api.post(cancel, deputy, key="k")) == (404, "NOT_FOUND")


def test_rights_come_before_the_key(api, ada, admin):
    """401, 403 and 404 although the key cannot be one."""
    account = api.account(ada)
    bad = {"environ_overrides": {"HTTP_IDEMPOTENCY_KEY": ","}}
    deposits = f"/accounts/{account}/deposits"
    assert refusal(api.post(deposits, None, {"amount": 1}, **bad)) == (401, "UNAUTHORIZED")
    assert refusal(api.post(deposits, ada, {"amount": 1}, **bad)) == (403, "FORBIDDEN")
    absent = deposits.replace(account, account[:-1] + ("0" if account[-1] != "0" else "1"))
    assert refusal(api.post(absent, admin, {"amount": 1}, **bad)) == (404, "NOT_FOUND")


def test_anothers_key_gives_nothing_away(api, ada, grace, admin):
    """Whoever knows key and body of another's transfer gets what he would get without the key: 404."""
    purse, other = api.account(ada, balance=10, admin=admin), api.account(grace)
    body = {"fromAccountId": purse, "toAccountId": other, "amount": 5}
    assert api.post("/transfers", ada, body, key="k").status_code == 201
    assert refusal(api.post("/transfers", grace, body, key="k")) == (404, "NOT_FOUND")
    assert refusal(api.post("/transfers", admin, body, key="k")) == (404, "NOT_FOUND")
