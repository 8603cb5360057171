"""The states of an order: placed, cancelled by its owner or an admin, or fulfilled by an admin."""

import pytest

from tests.answers import NOT_FOUND, refusal

ABSENT = "01890000-0000-7000-8000-00000000000a"
MAX_STOCK = 10**9
BODIES = [
    {}, {"json": {}}, {"data": b"{}"}, {"data": b"{}", "content_type": "text/plain"},
    {"data": b"", "content_type": "application/json"},
]  # fmt: skip


@pytest.fixture
def purse(api, ada, admin):
    return api.account(ada, balance=1000, admin=admin)


@pytest.fixture
def tea(api, admin):
    return api.product(admin, "TEA", price=250, stock=10)


@pytest.fixture
def placed(api, ada, purse, tea):
    """Ada's order of two teas for 500, as the API answered it."""
    body = {"accountId": purse, "items": [{"productId": tea, "quantity": 2}]}
    return api.post("/orders", ada, body).json["data"]


@pytest.fixture
def stock(api, tea):
    return lambda: api.get(f"/products/{tea}").json["data"]["stock"]


@pytest.fixture
def everything(api):
    """All that settling an order can change."""

    def everything():
        with api.app.database.snapshot() as tx:
            tables = ("products", "accounts", "transactions", "entries", "orders", "outbox", "idempotency_keys")
            return {table: tx.rows(f"SELECT * FROM {table}") for table in tables}

    return everything


@pytest.mark.parametrize("caller", ["ada", "admin"])
def test_a_cancellation_refunds_and_restocks(request, api, ada, admin, clock, purse, tea, placed, stock, caller):
    """200 with the order. The refund is what was paid, to the account that paid, whatever the price is now."""
    api.patch(f"/products/{tea}", admin, {"unitPrice": 1})
    clock.advance(5)
    answer = api.post(f"/orders/{placed['id']}/cancel", request.getfixturevalue(caller))
    cancelled = answer.json["data"]
    assert answer.status_code == 200, answer.text
    assert cancelled == {**placed, "status": "cancelled", "updatedAt": cancelled["updatedAt"]}
    assert cancelled["updatedAt"] > placed["updatedAt"]
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == cancelled
    assert (api.balance(purse, ada), stock()) == (1000, 10)
    refund = api.get(f"/accounts/{purse}/transactions", ada).json["data"][0]
    assert (refund["type"], refund["amount"], refund["orderId"]) == ("refund", 500, placed["id"])
    assert refund["toAccountId"] == purse


def test_a_cancellation_restocks_every_item(api, ada, admin, purse):
    """Each with its own quantity."""
    stocks = {api.product(admin, f"SKU-{n}", price=1, stock=10): n for n in (1, 2, 3)}
    items = [{"productId": product, "quantity": quantity} for product, quantity in stocks.items()]
    order = api.post("/orders", ada, {"accountId": purse, "items": items}).json["data"]["id"]

    def left():
        return [api.get(f"/products/{product}").json["data"]["stock"] for product in stocks]

    assert left() == [9, 8, 7]
    assert api.post(f"/orders/{order}/cancel", ada).status_code == 200
    assert left() == [10, 10, 10]


@pytest.mark.parametrize("which", [0, 1])
def test_a_cancellation_never_takes_a_stock_beyond_its_bound(api, ada, admin, purse, everything, which):
    """409 that names the SKU, and no effect; up to the bound it works."""
    made = [api.product(admin, sku, price=1, stock=10) for sku in ("A", "B")]
    items = [{"productId": product, "quantity": 2} for product in made]
    order = api.post("/orders", ada, {"accountId": purse, "items": items}).json["data"]["id"]
    api.patch(f"/products/{made[which]}", admin, {"stock": MAX_STOCK - 1})
    before = everything()
    refused = refusal(api.post(f"/orders/{order}/cancel", ada, key="k"))
    assert refused == (409, "CONFLICT", {"AB"[which]})
    assert everything() == before
    api.patch(f"/products/{made[which]}", admin, {"stock": MAX_STOCK - 2})
    assert api.post(f"/orders/{order}/cancel", ada, key="k").status_code == 200
    assert api.get(f"/products/{made[which]}").json["data"]["stock"] == MAX_STOCK


def test_fulfilling_an_order_moves_no_money_and_no_stock(api, ada, admin, purse, placed, stock):
    answer = api.post(f"/orders/{placed['id']}/fulfil", admin)
    fulfilled = answer.json["data"]
    assert answer.status_code == 200, answer.text
    assert fulfilled == {**placed, "status": "fulfilled", "updatedAt": fulfilled["updatedAt"]}
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == fulfilled
    assert (api.balance(purse, ada), stock()) == (500, 8)


@pytest.mark.parametrize("first", ["cancel", "fulfil"])
@pytest.mark.parametrize("then", ["cancel", "fulfil"])
def test_an_order_is_settled_once(api, ada, admin, purse, placed, stock, first, then):
    """409 for every further attempt, and the order does not change."""
    settled = api.post(f"/orders/{placed['id']}/{first}", admin).json["data"]
    before = api.balance(purse, ada), stock()
    assert refusal(api.post(f"/orders/{placed['id']}/{then}", admin)) == (409, "CONFLICT", set())
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == settled
    assert (api.balance(purse, ada), stock()) == before


def test_only_its_owner_and_admins_cancel_an_order(api, grace, placed):
    """404 for another user, as for an absent order; 401 without a token."""
    for which in (placed["id"], ABSENT, "nonsense"):
        assert refusal(api.post(f"/orders/{which}/cancel", grace)) == NOT_FOUND
        assert refusal(api.post(f"/orders/{which}/cancel"))[0] == 401


def test_only_admins_fulfil_an_order(api, ada, grace, admin, placed):
    """403 for users, the owner included, before the id is looked at."""
    for which in (placed["id"], ABSENT, "nonsense"):
        for person in (ada, grace):
            assert refusal(api.post(f"/orders/{which}/fulfil", person)) == (403, "FORBIDDEN", set())
        assert refusal(api.post(f"/orders/{which}/fulfil"))[0] == 401
    for which in (ABSENT, "nonsense"):
        assert refusal(api.post(f"/orders/{which}/fulfil", admin)) == NOT_FOUND


@pytest.mark.parametrize("action", ["cancel", "fulfil"])
@pytest.mark.parametrize("body", BODIES)
def test_neither_route_takes_a_body_or_needs_a_content_type(api, admin, placed, action, body):
    assert api("POST", f"/orders/{placed['id']}/{action}", admin, **body).status_code == 200


@pytest.mark.parametrize("action", ["cancel", "fulfil"])
@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"json": {"reason": "late"}}, (422, "VALIDATION_ERROR", {"reason"})),
        ({"json": []}, (422, "VALIDATION_ERROR", {"body"})),
        ({"data": b"{"}, (400, "MALFORMED_JSON", set())),
        ({"query_string": "reason=late"}, (422, "VALIDATION_ERROR", {"reason"})),
    ],
)
def test_a_body_with_fields_is_refused(api, admin, placed, action, body, refused):
    assert refusal(api("POST", f"/orders/{placed['id']}/{action}", admin, **body)) == refused
    assert api.get(f"/orders/{placed['id']}", admin).json["data"] == placed


def test_a_shop_account_without_money_cannot_refund(api, ada, admin, purse, placed, stock):
    """422, and order, money and stock do not change; once the shop account has money again, it works."""
    payment = api.get(f"/accounts/{purse}/transactions", ada).json["data"][0]
    shop = payment["toAccountId"]
    assert api.post(f"/accounts/{shop}/withdrawals", admin, {"amount": 1}).status_code == 201
    cancel = f"/orders/{placed['id']}/cancel"
    assert refusal(api.post(cancel, ada)) == (422, "INSUFFICIENT_FUNDS", set())
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == placed
    assert (api.balance(purse, ada), stock()) == (500, 8)
    assert api.post(f"/accounts/{shop}/deposits", admin, {"amount": 1}).status_code == 201
    assert api.post(cancel, ada).status_code == 200
