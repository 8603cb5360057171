"""Twenty requests at the same moment, in threads of one application and over two that share the database."""

from collections import Counter

import pytest

from backend.repositories import products, transactions
from tests.at_once import at_once

CROWD = 20


@pytest.fixture(params=[1, 2], ids=["one application", "two applications"])
def apis(request, make_api):
    """One or two workers. Requests wait long enough for the lock."""
    return [make_api(busy_timeout_seconds=600.0) for _ in range(request.param)]


@pytest.fixture
def api(apis):
    return apis[0]


@pytest.fixture
def crowd(apis):
    """The answers to twenty requests at once, spread over the workers: `crowd(lambda api, n: api.post(…))`."""
    return lambda ask: at_once([lambda n=n: ask(apis[n % len(apis)], n) for n in range(CROWD)])


@pytest.fixture(autouse=True)
def balanced_books(apis):
    """Afterwards every currency adds up to 0 and every balance to its entries."""
    yield
    with apis[0].app.database.snapshot() as tx:
        assert transactions.unbalanced(tx) == []


def outcomes(answers):
    """The number of answers with each status and code."""
    return Counter((answer.status_code, answer.json.get("error", {}).get("code")) for answer in answers)


@pytest.mark.parametrize("way", ["transfers", "withdrawals"])
def test_an_account_is_drained_to_exactly_nothing(api, crowd, admin, ada, grace, way):
    """1000 cents are ten times 100: ten succeed, ten get INSUFFICIENT_FUNDS."""
    purse, other = api.account(ada, balance=1000, admin=admin), api.account(grace)

    def spend(api, _):
        if way == "withdrawals":
            return api.post(f"/accounts/{purse}/withdrawals", admin, {"amount": 100})
        return api.post("/transfers", ada, {"fromAccountId": purse, "toAccountId": other, "amount": 100})

    assert outcomes(crowd(spend)) == {(201, None): 10, (422, "INSUFFICIENT_FUNDS"): 10}
    assert api.balance(purse, ada) == 0
    assert api.balance(other, grace) == (1000 if way == "transfers" else 0)


def test_money_that_crosses_neither_blocks_nor_gets_lost(api, crowd, admin, ada, grace):
    """Ten transfers from Ada to Grace and ten from Grace to Ada, all of different amounts: each arrives."""
    hers, theirs = api.account(ada, balance=1000, admin=admin), api.account(grace, balance=1000, admin=admin)

    def cross(api, n):
        whose, source, target = (ada, hers, theirs) if n % 4 < 2 else (grace, theirs, hers)
        return api.post("/transfers", whose, {"fromAccountId": source, "toAccountId": target, "amount": 2**n % 97 + 1})

    moved = sum((1 if n % 4 < 2 else -1) * (2**n % 97 + 1) for n in range(CROWD))
    assert outcomes(crowd(cross)) == {(201, None): CROWD}
    assert (api.balance(hers, ada), api.balance(theirs, grace)) == (1000 - moved, 1000 + moved)


def test_nothing_is_sold_twice(api, crowd, admin, ada):
    """Of 7 in stock 7 are sold, and the other 13 orders are refused; each sale raises the version."""
    purse, product = api.account(ada, balance=10_000, admin=admin), api.product(admin, "TEA", price=250, stock=7)
    order = {"accountId": purse, "items": [{"productId": product, "quantity": 1}]}
    answers = crowd(lambda api, _: api.post("/orders", ada, order))
    assert outcomes(answers) == {(201, None): 7, (409, "OUT_OF_STOCK"): 13}
    left = api.get(f"/products/{product}").json["data"]
    assert (left["stock"], left["version"]) == (0, 8)
    assert api.balance(purse, ada) == 10_000 - 7 * 250
    assert len(api.get("/orders?limit=100", ada).json["data"]) == 7


@pytest.mark.parametrize("route", ["/transfers", "/orders", "/accounts", "/accounts/{purse}/deposits"])
def test_one_idempotency_key_has_one_effect_and_all_requests_get_its_answer(api, crowd, admin, ada, grace, route):
    """Twenty equal answers, byte for byte; all but one are marked as replays."""
    purse, other = api.account(ada, balance=1000, admin=admin), api.account(grace)
    bodies = {
        "/transfers": {"fromAccountId": purse, "toAccountId": other, "amount": 100},
        "/orders": {"accountId": purse, "items": [{"productId": api.product(admin, price=100), "quantity": 1}]},
        "/accounts": {"currency": "EUR"},
        "/accounts/{purse}/deposits": {"amount": 100},
    }
    whose, path = (admin if "deposits" in route else ada), route.replace("{purse}", purse)
    answers = crowd(lambda api, _: api.post(path, whose, bodies[route], key="k"))
    assert outcomes(answers) == {(201, None): CROWD}
    assert len({(answer.headers["Location"], answer.data.partition(b',"meta":')[0]) for answer in answers}) == 1
    assert Counter("Idempotency-Replayed" in answer.headers for answer in answers) == {False: 1, True: CROWD - 1}
    moved = {"/accounts": 0, "/accounts/{purse}/deposits": 100}.get(route, -100)
    assert api.balance(purse, ada) == 1000 + moved
    assert len(api.get("/accounts", ada).json["data"]) == (2 if route == "/accounts" else 1)


def test_one_key_for_different_requests_stands_for_the_first_of_them(api, crowd, ada):
    """Ten ask for euros, ten for dollars, all with one key: one account is opened, and the others are refused."""
    answers = crowd(lambda api, n: api.post("/accounts", ada, {"currency": ("EUR", "USD")[n % 4 < 2]}, key="k"))
    assert outcomes(answers) == {(201, None): 10, (422, "IDEMPOTENCY_KEY_REUSED"): 10}
    assert len(api.get("/accounts", ada).json["data"]) == 1


def test_an_order_is_cancelled_or_fulfilled_and_only_once(api, crowd, admin, ada):
    """Ten cancellations and ten fulfilments of one order: one wins, and money and stock match it."""
    purse, product = api.account(ada, balance=1000, admin=admin), api.product(admin, "TEA", price=300, stock=5)
    order = {"accountId": purse, "items": [{"productId": product, "quantity": 2}]}
    placed = api.post("/orders", ada, order).json["data"]["id"]
    answers = crowd(lambda api, n: api.post(f"/orders/{placed}/{('cancel', 'fulfil')[n % 4 < 2]}", admin))
    assert outcomes(answers) == {(200, None): 1, (409, "CONFLICT"): CROWD - 1}
    (won,) = (answer.json["data"]["status"] for answer in answers if answer.status_code == 200)
    assert api.get(f"/orders/{placed}", ada).json["data"]["status"] == won
    stock = api.get(f"/products/{product}").json["data"]["stock"]
    assert (api.balance(purse, ada), stock) == ((1000, 5) if won == "cancelled" else (400, 3))


def test_one_sku_is_one_product(api, crowd, admin):
    new = {"sku": "TEA", "name": "Tea", "unitPrice": 1, "currency": "EUR", "stock": 1}
    answers = crowd(lambda api, _: api.post("/products", admin, new))
    assert outcomes(answers) == {(201, None): 1, (409, "CONFLICT"): CROWD - 1}
    assert len(api.get("/products").json["data"]) == 1


def test_of_many_changes_of_one_version_one_is_made(api, crowd, admin):
    """The others get 412: no update is lost silently. (The core's cache is of one application: ask the database.)"""
    product = api.product(admin, stock=0)
    answers = crowd(
        lambda api, n: api.patch(f"/products/{product}", admin, {"stock": n + 1}, headers={"If-Match": '"1"'})
    )
    assert outcomes(answers) == {(200, None): 1, (412, "PRECONDITION_FAILED"): CROWD - 1}
    (stock,) = (answer.json["data"]["stock"] for answer in answers if answer.status_code == 200)
    with api.app.database.snapshot() as tx:
        assert products.by_id(tx, product).stock == stock


def test_a_currency_has_one_system_account_after_deposits_at_once(api, crowd, admin, ada):
    account = api.account(ada, "CHF")
    answers = crowd(lambda api, _: api.post(f"/accounts/{account}/deposits", admin, {"amount": 1}))
    assert outcomes(answers) == {(201, None): CROWD}
    assert len({answer.json["data"]["fromAccountId"] for answer in answers}) == 1
    assert api.balance(account, ada) == CROWD
