"""Accounts and money over HTTP: rights to see and move money, and the bounds of amounts."""

import pytest

from tests.answers import NOT_FOUND, refusal, wrong

ABSENT = "01890000-0000-7000-8000-00000000000a"
MAX_AMOUNT, MAX_BALANCE = 10**12, 2**63 - 1
WAYS = ["deposits", "withdrawals", "transfers"]


@pytest.fixture
def purse(api, ada, admin):
    """An account of Ada with 1000 cents."""
    return api.account(ada, balance=1000, admin=admin)


@pytest.fixture
def other(api, grace):
    """An empty account of Grace."""
    return api.account(grace)


@pytest.fixture
def move(api, admin, ada, purse, other):
    """Deposit to, withdraw from or transfer from Ada's account: `move("deposits", amount=…)`."""

    def move(way, **body):
        if way == "transfers":
            return api.post("/transfers", ada, {"fromAccountId": purse, "toAccountId": other, **body})
        return api.post(f"/accounts/{purse}/{way}", admin, body)

    return move


def set_balance(api, account, balance):
    with api.app.database.transaction() as tx:
        tx.run("UPDATE accounts SET balance = :balance WHERE id = :id", id=account, balance=balance)


def internal_account(api, admin):
    """The ids of the system and the shop account, created by a deposit and an order."""
    accounts = api.get("/accounts?limit=100", admin).json["data"]
    return [account["id"] for account in accounts if account["ownerId"] is None]


def test_a_user_can_open_any_number_of_accounts(api, ada):
    """201 with Location and balance 0; a second one in the same currency is another account."""
    first, second = (api.post("/accounts", ada, {"currency": "JPY"}) for _ in range(2))
    account = first.json["data"]
    assert first.status_code == second.status_code == 201
    assert first.headers["Location"] == f"/api/v1/accounts/{account['id']}"
    assert {**account, "ownerId": ada.id, "currency": "JPY", "balance": 0} == account
    assert set(account) == {"id", "ownerId", "currency", "balance", "createdAt"}
    assert api.get("/accounts", ada).json["data"] == [second.json["data"], account]
    assert api.get(f"/accounts/{account['id']}", ada).json["data"] == account


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "currency"), ({"currency": None}, "currency"), ({"currency": "eur"}, "currency"),
        ({"currency": "EU R"}, "currency"), ({"currency": "DEM"}, "currency"), ({"currency": "XXX"}, "currency"),
        ({"currency": ["EUR"]}, "currency"), ({"currency": "EUR", "balance": 5}, "balance"),
        ({"currency": "EUR", "ownerId": ABSENT}, "ownerId"), ([], "body"),
    ],
)  # fmt: skip
def test_an_account_needs_an_active_currency_and_nothing_else(api, ada, body, field):
    assert refusal(api.post("/accounts", ada, body)) == wrong(field)
    assert api.get("/accounts", ada).json["data"] == []


def test_money_comes_in_and_goes_out_through_the_system_account(api, admin, ada, purse):
    """201 with Location; the system account's balance is minus what was deposited."""
    (system,) = internal_account(api, admin)
    answer = api.post(f"/accounts/{purse}/withdrawals", admin, {"amount": 400, "memo": "cash"})
    out = answer.json["data"]
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/transactions/{out['id']}"
    wanted = {"type": "withdrawal", "fromAccountId": purse, "toAccountId": system, "amount": 400, "currency": "EUR"}
    assert {**out, **wanted, "memo": "cash", "orderId": None} == out
    assert set(out) == {*wanted, "id", "memo", "orderId", "createdAt"}
    assert (api.balance(purse, ada), api.balance(system, admin)) == (600, -600)
    came = api.get(f"/accounts/{purse}/transactions", ada).json["data"][1]
    assert (came["type"], came["fromAccountId"], came["toAccountId"]) == ("deposit", system, purse)


def test_a_transfer_is_on_both_statements_and_both_owners_see_it(api, ada, grace, admin, purse, other, move):
    answer = move("transfers", amount=250, memo="tea")
    moved = answer.json["data"]
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/transactions/{moved['id']}"
    assert (moved["type"], moved["amount"], moved["memo"], moved["orderId"]) == ("transfer", 250, "tea", None)
    assert (api.balance(purse, ada), api.balance(other, grace)) == (750, 250)
    for account, person in ((purse, ada), (other, grace), (other, admin)):
        assert api.get(f"/accounts/{account}/transactions", person).json["data"][0] == moved
        assert api.get(f"/transactions/{moved['id']}", person).json["data"] == moved


def test_a_user_can_transfer_between_own_accounts(api, ada, purse):
    savings = api.account(ada)
    body = {"fromAccountId": purse, "toAccountId": savings, "amount": 1000}
    assert api.post("/transfers", ada, body).status_code == 201
    assert (api.balance(purse, ada), api.balance(savings, ada)) == (0, 1000)


@pytest.mark.parametrize("way", WAYS)
def test_an_amount_is_an_integer_within_bounds(api, ada, purse, move, way):
    for amount in (0, -1, 1.5, 1.0, True, "1", None, [1], MAX_AMOUNT + 1, MAX_BALANCE):
        assert refusal(move(way, amount=amount)) == wrong("amount"), amount
    assert api.balance(purse, ada) == 1000


@pytest.mark.parametrize("way", WAYS)
def test_an_amount_beyond_64_bits_is_no_number_here(move, way):
    assert refusal(move(way, amount=2**63)) == (400, "MALFORMED_JSON", set())


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_amount_can_be_moved(api, admin, ada, purse, move, way):
    assert move("deposits", amount=MAX_AMOUNT).status_code == 201
    answer = move(way, amount=MAX_AMOUNT)
    assert (answer.status_code, answer.json["data"]["amount"]) == (201, MAX_AMOUNT)
    assert api.balance(purse, ada) == (2 * MAX_AMOUNT + 1000 if way == "deposits" else 1000)


@pytest.mark.parametrize("way", ["withdrawals", "transfers"])
def test_a_user_cannot_spend_more_than_the_balance(api, ada, grace, purse, other, move, way):
    """422; the last cent can be spent, and no further one."""
    assert refusal(move(way, amount=1001)) == (422, "INSUFFICIENT_FUNDS", set())
    assert (api.balance(purse, ada), api.balance(other, grace)) == (1000, 0)
    assert move(way, amount=1000).status_code == 201
    assert refusal(move(way, amount=1)) == (422, "INSUFFICIENT_FUNDS", set())
    assert len(api.get(f"/accounts/{purse}/transactions", ada).json["data"]) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_memo_is_kept_trimmed_and_null_is_as_none(move, way):
    assert move(way, amount=1).json["data"]["memo"] is None
    for memo, kept in ((None, None), ("", ""), ("   ", ""), (" tea ", "tea"), ("m" * 500, "m" * 500)):
        assert move(way, amount=1, memo=memo).json["data"]["memo"] == kept


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_memo_is_named(move, way):
    for memo in ("m" * 501, 7, ["tea"], "nul\0", "two\nlines"):
        assert refusal(move(way, amount=1, memo=memo)) == wrong("memo"), memo


@pytest.mark.parametrize("way", WAYS)
def test_all_wrong_fields_are_named_at_once(move, way):
    assert refusal(move(way, amount=0, memo=7, orderId=ABSENT)) == wrong("amount", "memo", "orderId")


@pytest.mark.parametrize("field", ["fromAccountId", "toAccountId"])
def test_an_invalid_id_is_a_wrong_field_of_a_transfer(move, field):
    for value in (None, 7, "", "nonsense", ABSENT.upper()):
        assert refusal(move("transfers", amount=1, **{field: value})) == wrong(field), value


def test_a_transfer_needs_two_accounts(api, ada, purse):
    body = {"fromAccountId": purse, "toAccountId": purse, "amount": 1}
    assert refusal(api.post("/transfers", ada, body)) == wrong("toAccountId")
    assert refusal(api.post("/transfers", ada, {})) == wrong("fromAccountId", "toAccountId", "amount")


def test_currencies_do_not_mix(api, ada, grace, purse):
    dollars = api.account(grace, "USD")
    body = {"fromAccountId": purse, "toAccountId": dollars, "amount": 1}
    assert refusal(api.post("/transfers", ada, body)) == (422, "CURRENCY_MISMATCH", set())
    assert (api.balance(purse, ada), api.balance(dollars, grace)) == (1000, 0)


def test_a_transfer_goes_from_an_own_account_to_a_users_account(api, ada, grace, admin, purse, other):
    """404 from another user's account, for admins too, and from or to an absent or internal account."""
    api.account(admin, balance=500, admin=admin)
    product = api.product(admin, price=1)
    api.post("/orders", ada, {"accountId": purse, "items": [{"productId": product, "quantity": 1}]})
    system, shop = internal_account(api, admin)
    before = [api.balance(account, admin) for account in (purse, other, system, shop)]
    for person, source, target in (
        (grace, purse, other), (admin, purse, other), (ada, ABSENT, other), (ada, purse, ABSENT),
        (ada, purse, system), (ada, purse, shop), (admin, system, other), (admin, shop, other),
        (ada, system, purse), (ada, system, shop),
    ):  # fmt: skip
        body = {"fromAccountId": source, "toAccountId": target, "amount": 1}
        assert refusal(api.post("/transfers", person, body)) == NOT_FOUND
    assert [api.balance(account, admin) for account in (purse, other, system, shop)] == before


def test_the_system_account_takes_no_deposit_from_itself(api, admin, purse):
    """422, and no effect."""
    (system,) = internal_account(api, admin)
    for way in ("deposits", "withdrawals"):
        assert refusal(api.post(f"/accounts/{system}/{way}", admin, {"amount": 1}))[:2] == (422, "VALIDATION_ERROR")
    assert api.balance(system, admin) == -1000


@pytest.mark.parametrize("way", ["deposits", "transfers"])
def test_a_balance_stays_within_64_bits(api, ada, grace, admin, purse, other, move, way):
    """422 with details.amount for one cent too many; the last cent that fits is accepted."""
    target, owner = (purse, ada) if way == "deposits" else (other, grace)
    set_balance(api, target, MAX_BALANCE - 5)
    assert refusal(move(way, amount=6)) == wrong("amount")
    assert api.balance(target, owner) == MAX_BALANCE - 5
    assert move(way, amount=5).status_code == 201
    assert api.balance(target, owner) == MAX_BALANCE


def test_the_debt_of_the_system_account_stays_within_64_bits(api, admin, purse, move):
    (system,) = internal_account(api, admin)
    set_balance(api, system, 4 - MAX_BALANCE)
    assert refusal(move("deposits", amount=5)) == wrong("amount")
    assert move("deposits", amount=4).status_code == 201
    assert api.balance(system, admin) == -MAX_BALANCE
