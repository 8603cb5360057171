"""Rights to accounts and transactions: owners see their own, admins all; for others they do not exist."""

import re

import pytest

from tests.answers import refusal

ABSENT = "01890000-0000-7000-8000-00000000000a"


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json["data"]]


def pages(api, path, person):
    """The ids on each page, following the Link header to the end."""
    while path:
        answer = api.get(path, person)
        yield ids(answer)
        following = re.fullmatch(r'</api/v1(.*)>; rel="next"', answer.headers.get("Link", ""))
        assert (following is None) == (answer.json["meta"]["pagination"]["nextCursor"] is None)
        path = following and following[1]


@pytest.mark.parametrize("path", ["/accounts/{id}", "/accounts/{id}/transactions"])
def test_another_users_account_looks_like_an_absent_one(api, ada, grace, admin, path):
    """404 with the same body; an admin sees it."""
    account = api.account(ada)
    foreign, absent, nonsense = (api.get(path.replace("{id}", which), grace) for which in (account, ABSENT, "nonsense"))
    assert refusal(foreign) == refusal(absent) == refusal(nonsense) == (404, "NOT_FOUND", set())
    assert foreign.json["error"] == absent.json["error"] == nonsense.json["error"]
    assert api.get(path.replace("{id}", account), admin).status_code == 200
    assert api.get(path.replace("{id}", account)).status_code == 401


def test_a_transaction_is_for_the_owners_of_its_sides(api, ada, grace, admin):
    """404 for others and for absent ones; the other side of a deposit has no owner."""
    eve = api.sign_up("Eve")
    purse, other = api.account(ada, balance=10, admin=admin), api.account(grace)
    body = {"fromAccountId": purse, "toAccountId": other, "amount": 5}
    transfer = api.post("/transfers", ada, body).json["data"]["id"]
    (deposit,) = set(ids(api.get(f"/accounts/{purse}/transactions", ada))) - {transfer}
    seen = {
        (person.email.partition("@")[0], which): api.get(f"/transactions/{which}", person).status_code
        for person in (ada, grace, admin, eve)
        for which in (transfer, deposit, ABSENT, "nonsense")
    }
    assert {pair for pair, status in seen.items() if status == 200} == {
        ("ada", transfer), ("ada", deposit), ("grace", transfer), ("root", transfer), ("root", deposit),
    }  # fmt: skip
    assert {status for status in seen.values() if status != 200} == {404}


@pytest.mark.parametrize("way", ["deposits", "withdrawals"])
def test_only_admins_deposit_and_withdraw(api, ada, admin, way):
    """403 for users, before the id and the body are looked at; 404 for admins if there is no such account."""
    account = api.account(ada, balance=10, admin=admin)
    for which in (account, ABSENT, "nonsense"):
        path = f"/accounts/{which}/{way}"
        assert refusal(api.post(path, ada, {"amount": "?"})) == (403, "FORBIDDEN", set())
        assert refusal(api.post(path, json={"amount": 1}))[0] == 401
    for which in (ABSENT, "nonsense"):
        path = f"/accounts/{which}/{way}"
        assert refusal(api.post(path, admin, {"amount": "?"})) == (404, "NOT_FOUND", set())
    assert api.balance(account, ada) == 10


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/accounts"), ("GET", "/accounts"), ("POST", "/transfers"), ("GET", f"/transactions/{ABSENT}")],
)
def test_without_a_token_no_account_can_be_read_or_used(api, method, path):
    answer = api(method, path)
    assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "missing"})


def test_no_money_goes_to_a_deactivated_user(api, ada, grace, admin):
    """A transfer is 404, a deposit 409; what the account holds can still be withdrawn."""
    source, target = api.account(ada, balance=100, admin=admin), api.account(grace, balance=50, admin=admin)
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    moved = api.post("/transfers", ada, {"fromAccountId": source, "toAccountId": target, "amount": 5})
    assert (moved.status_code, moved.json["error"]["code"]) == (404, "NOT_FOUND")
    paid_in = api.post(f"/accounts/{target}/deposits", admin, {"amount": 5})
    assert (paid_in.status_code, paid_in.json["error"]["code"]) == (409, "CONFLICT")
    assert (api.balance(source, admin), api.balance(target, admin)) == (100, 50)
    assert api.post(f"/accounts/{target}/withdrawals", admin, {"amount": 50}).status_code == 201
    api.patch(f"/users/{grace.id}", admin, {"active": True})
    moved = api.post("/transfers", ada, {"fromAccountId": source, "toAccountId": target, "amount": 5})
    assert moved.status_code == 201


def test_no_money_goes_to_a_deleted_user_except_a_refund(api, ada, grace, admin):
    """From no sender. A refund is the user's own money and goes back to the account that paid."""
    source, target = api.account(admin, balance=100, admin=admin), api.account(grace, balance=300, admin=admin)
    items = [{"productId": api.product(admin), "quantity": 1}]
    order = api.post("/orders", grace, {"accountId": target, "items": items}).json["data"]["id"]
    api.delete(f"/users/{grace.id}", admin)
    for sender in (admin, ada):
        body = {"fromAccountId": source if sender is admin else api.account(ada), "toAccountId": target, "amount": 1}
        assert refusal(api.post("/transfers", sender, body)) == (404, "NOT_FOUND", set())
    assert refusal(api.post(f"/accounts/{target}/deposits", admin, {"amount": 1})) == (409, "CONFLICT", set())
    assert refusal(api.post("/orders", admin, {"accountId": target, "items": items})) == (404, "NOT_FOUND", set())
    assert api.balance(target, admin) == 50
    assert api.post(f"/orders/{order}/cancel", admin).status_code == 200
    assert api.balance(target, admin) == 300


def test_a_user_lists_own_accounts_and_an_admin_all(api, ada, grace, admin):
    """Newest first; internal accounts are among the latter, without an owner."""
    purse, other = api.account(ada, balance=10, admin=admin), api.account(grace)
    order = {"accountId": purse, "items": [{"productId": api.product(admin, price=1), "quantity": 1}]}
    assert api.post("/orders", ada, order).status_code == 201
    assert ids(api.get("/accounts", ada)) == [purse]
    assert ids(api.get("/accounts", grace)) == [other]
    everything = api.get("/accounts", admin).json["data"]
    assert [account["id"] for account in everything] == sorted((a["id"] for a in everything), reverse=True)
    house = {(account["ownerId"], account["currency"], account["balance"]) for account in everything} - {
        (ada.id, "EUR", 9),
        (grace.id, "EUR", 0),
    }
    assert house == {(None, "EUR", -10), (None, "EUR", 1)}
    assert len(everything) == 4


def test_an_admin_can_list_one_owners_accounts(api, ada, grace, admin):
    mine = [api.account(ada), api.account(ada, "USD")]
    api.account(grace)
    assert ids(api.get(f"/accounts?ownerId={ada.id}", admin)) == mine[::-1]
    assert ids(api.get(f"/accounts?ownerId={ABSENT}", admin)) == []
    assert refusal(api.get("/accounts?ownerId=nonsense", admin)) == (422, "VALIDATION_ERROR", {"ownerId"})


def test_the_filter_by_owner_is_unknown_to_users(api, ada, grace):
    """422, also with the user's own id."""
    for owner in (ada, grace):
        answer = api.get(f"/accounts?ownerId={owner.id}", ada)
        assert refusal(answer) == (422, "VALIDATION_ERROR", {"ownerId"})


def test_lists_come_in_pages_that_neither_repeat_nor_skip(api, ada, grace, admin):
    """A page of three, then the rest; the Link keeps filter and limit. What is written meanwhile is not on it."""
    accounts = [api.account(ada) for _ in range(5)]
    for path, person in (("/accounts?limit=3", ada), (f"/accounts?limit=3&ownerId={ada.id}", admin)):
        seen = pages(api, path, person)
        first = next(seen)
        api.account(grace)
        assert [first, *seen] == [accounts[:1:-1], accounts[1::-1]]


def test_a_statement_is_newest_first_and_comes_in_pages(api, ada, admin):
    account, other = api.account(ada), api.account(ada)
    made = [api.post(f"/accounts/{account}/deposits", admin, {"amount": n}).json["data"]["id"] for n in range(1, 5)]
    body = {"fromAccountId": account, "toAccountId": other, "amount": 3}
    made.append(api.post("/transfers", ada, body).json["data"]["id"])
    seen = pages(api, f"/accounts/{account}/transactions?limit=2", ada)
    first = next(seen)
    api.post("/transfers", ada, body)
    assert [first, *seen] == [made[:2:-1], made[2:0:-1], made[:1]]
    assert len(ids(api.get(f"/accounts/{other}/transactions", ada))) == 2


def test_a_cursor_is_valid_only_for_its_list_filter_and_user(api, ada, grace, admin):
    """422 details.cursor: on another account's statement, under another filter, for another user, or cut."""
    account, other = api.account(ada), api.account(ada)
    for each in (account, other):
        for _ in range(2):
            api.post(f"/accounts/{each}/deposits", admin, {"amount": 1})
    api.account(grace)
    for path, person, misuses in (
        (f"/accounts/{account}/transactions", ada, [(f"/accounts/{other}/transactions", ada), ("/accounts", ada)]),
        ("/accounts", ada, [("/accounts", grace), ("/accounts", admin), ("/orders", ada)]),
        (f"/accounts?ownerId={ada.id}", admin, [("/accounts", admin), (f"/accounts?ownerId={grace.id}", admin)]),
    ):
        joint = "&" if "?" in path else "?"
        cursor = api.get(f"{path}{joint}limit=1", person).json["meta"]["pagination"]["nextCursor"]
        assert len(ids(api.get(f"{path}{joint}cursor={cursor}", person))) >= 1
        for elsewhere, whose in misuses + [(path, person)] * 2:
            bad = cursor if (elsewhere, whose) in misuses else cursor[:-1]
            joint = "&" if "?" in elsewhere else "?"
            answer = api.get(f"{elsewhere}{joint}cursor={bad}", whose)
            assert refusal(answer) == (422, "VALIDATION_ERROR", {"cursor"}), elsewhere


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=%2B1", "limit=1&limit=1", "limit=", "cursor=x", "sort=id"]
)
def test_a_wrong_parameter_of_a_list_is_named(api, ada, query):
    account = api.account(ada)
    for path in ("/accounts", f"/accounts/{account}/transactions"):
        answer = api.get(f"{path}?{query}", ada)
        assert refusal(answer) == (422, "VALIDATION_ERROR", {query.partition("=")[0]})


def test_a_parameter_is_refused_where_none_is_known(api, ada, admin):
    account = api.account(ada, balance=5, admin=admin)
    (deposit,) = ids(api.get(f"/accounts/{account}/transactions", ada))
    for path in (f"/accounts/{account}", f"/transactions/{deposit}"):
        assert refusal(api.get(f"{path}?limit=1", ada)) == (422, "VALIDATION_ERROR", {"limit"})
    answer = api.post("/accounts?limit=1", ada, {"currency": "EUR"})
    assert refusal(answer) == (422, "VALIDATION_ERROR", {"limit"})
