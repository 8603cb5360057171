"""Orders over HTTP: placing them, and the right to see them."""

import pytest

from tests.answers import NOT_FOUND, refusal, wrong

ABSENT = "01890000-0000-7000-8000-00000000000a"
MAX_AMOUNT = 10**12


def item(product, quantity=1):
    return {"productId": product, "quantity": quantity}


@pytest.fixture
def purse(api, ada, admin):
    """An account of Ada with 1000 cents."""
    return api.account(ada, balance=1000, admin=admin)


@pytest.fixture
def tea(api, admin):
    return api.product(admin, "TEA", price=250, stock=10)


@pytest.fixture
def order(api, ada, purse):
    """Place an order of Ada: `order(item(tea, 2), …)`."""
    return lambda *items, account=purse: api.post("/orders", ada, {"accountId": account, "items": list(items)})


@pytest.fixture
def everything(api):
    """All that an order can change."""

    def everything():
        with api.app.database.snapshot() as tx:
            tables = ("products", "accounts", "transactions", "entries", "orders", "order_items", "outbox")
            return {table: tx.rows(f"SELECT * FROM {table}") for table in tables}

    return everything


def test_an_order_is_paid_at_the_products_prices(api, admin, ada, purse, tea, order, everything):
    """201 with Location, the items in the order of the request, a payment that names the order, and an event."""
    cup = api.product(admin, "CUP", price=100, stock=1)
    answer = order(item(tea, 2), item(cup))
    placed = answer.json["data"]
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/api/v1/orders/{placed['id']}"
    items = [
        {"productId": tea, "sku": "TEA", "name": "The TEA", "quantity": 2, "unitPrice": 250},
        {"productId": cup, "sku": "CUP", "name": "The CUP", "quantity": 1, "unitPrice": 100},
    ]
    wanted = {"userId": ada.id, "accountId": purse, "status": "placed", "currency": "EUR", "total": 600}
    assert {**placed, **wanted, "items": items} == placed
    assert set(placed) == {*wanted, "id", "items", "createdAt", "updatedAt"}
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == placed
    payment = api.get(f"/accounts/{purse}/transactions", ada).json["data"][0]
    assert (payment["type"], payment["amount"], payment["orderId"]) == ("payment", 600, placed["id"])
    assert (api.balance(purse, ada), api.balance(payment["toAccountId"], admin)) == (400, 600)
    assert [api.get(f"/products/{product}").json["data"]["stock"] for product in (tea, cup)] == [8, 0]
    assert [event[2] for event in everything()["outbox"]][-1] == "order.placed"


def test_items_keep_the_order_of_the_request_and_the_state_when_sold(api, admin, ada, purse, order):
    """Up to 50 of them. A later change of name or price does not change them."""
    made = [api.product(admin, f"SKU-{n}", price=n % 7 + 1, stock=n) for n in range(50, 0, -1)]
    products = made[1::2] + made[::2]
    placed = order(*map(item, products)).json["data"]
    assert [entry["productId"] for entry in placed["items"]] == products
    assert placed["total"] == sum(n % 7 + 1 for n in range(50, 0, -1))
    api.patch(f"/products/{products[0]}", admin, {"name": "Dearer", "unitPrice": 9999})
    assert api.get(f"/orders/{placed['id']}", ada).json["data"] == placed


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([], "items"), ("tea", "items"), (None, "items"), ({}, "items"), ([item(ABSENT)] * 51, "items"),
        ([7], "items[0]"), ([None], "items[0]"), ([{"quantity": 1}], "items[0].productId"),
        ([item("tea")], "items[0].productId"), ([item(None)], "items[0].productId"),
        ([{"productId": ABSENT}], "items[0].quantity"), ([item(ABSENT, 0)], "items[0].quantity"),
        ([item(ABSENT, -1)], "items[0].quantity"), ([item(ABSENT, 1001)], "items[0].quantity"),
        ([item(ABSENT, 1.5)], "items[0].quantity"), ([item(ABSENT, True)], "items[0].quantity"),
        ([item(ABSENT, "1")], "items[0].quantity"), ([item(ABSENT), item(ABSENT, 2)], "items[1].productId"),
        ([{**item(ABSENT), "unitPrice": 1}], "items[0].unitPrice"),
    ],
)  # fmt: skip
def test_a_wrong_item_is_named_by_its_path(api, ada, items, field):
    """Clients do not set prices, and no product may occur twice."""
    assert refusal(api.post("/orders", ada, {"accountId": ABSENT, "items": items})) == wrong(field)


def test_all_wrong_fields_of_an_order_are_named_at_once(api, ada):
    body = {"accountId": "mine", "items": [item(ABSENT, 0), {"productId": 7, "quantity": 1, "name": ""}], "total": 1}
    fields = ("accountId", "items[0].quantity", "items[1].productId", "items[1].name", "total")
    assert refusal(api.post("/orders", ada, body)) == wrong(*fields)
    assert refusal(api.post("/orders", ada, {})) == wrong("accountId", "items")


def test_absent_products_are_named_by_their_path(tea, order, everything):
    before = everything()
    other = ABSENT.replace("a", "b")
    assert refusal(order(item(ABSENT), item(tea), item(other))) == wrong("items[0].productId", "items[2].productId")
    assert everything() == before


def test_the_total_of_an_order_has_the_bound_of_an_amount(api, admin, purse, order, everything):
    """422 details.items beyond it; the greatest total can be paid."""
    dear = api.product(admin, "DEAR", price=MAX_AMOUNT // 10, stock=1000)
    api.post(f"/accounts/{purse}/deposits", admin, {"amount": MAX_AMOUNT})
    before = everything()
    assert refusal(order(item(dear, 11))) == wrong("items")
    assert refusal(order(item(dear, 1000))) == wrong("items")
    assert everything() == before
    assert order(item(dear, 10)).json["data"]["total"] == MAX_AMOUNT


def test_an_order_that_costs_more_than_max_total_is_refused(api, ada, admin, tea, purse, everything):
    """The client reads a price of 2.50, the price rises, and `maxTotal` is still the former total."""
    body = {"accountId": purse, "items": [item(tea, 2)], "maxTotal": 500}
    api.patch(f"/products/{tea}", admin, {"unitPrice": 251})
    before = everything()
    answer = api.post("/orders", ada, body)
    assert refusal(answer) == (409, "CONFLICT", {"total"})
    assert everything() == before
    api.patch(f"/products/{tea}", admin, {"unitPrice": 250})
    assert api.post("/orders", ada, body).json["data"]["total"] == 500


def test_a_refusal_by_max_total_leaves_no_key_and_a_replay_checks_no_price(api, ada, admin, tea, purse):
    body = {"accountId": purse, "items": [item(tea, 2)], "maxTotal": 499}
    assert refusal(api.post("/orders", ada, body, key="tea")) == (409, "CONFLICT", {"total"})
    first = api.post("/orders", ada, {**body, "maxTotal": 500}, key="tea")
    assert first.json["data"]["total"] == 500
    api.patch(f"/products/{tea}", admin, {"unitPrice": 400})
    again = api.post("/orders", ada, {**body, "maxTotal": 500}, key="tea")
    assert (again.json["data"], again.headers["Idempotency-Replayed"]) == (first.json["data"], "true")


@pytest.mark.parametrize("most", [0, -1, MAX_AMOUNT + 1, "500", 500.0, True, None])
def test_a_max_total_is_an_amount(api, ada, tea, purse, most):
    answer = api.post("/orders", ada, {"accountId": purse, "items": [item(tea)], "maxTotal": most})
    assert refusal(answer) == wrong("maxTotal")


def test_what_is_out_of_stock_is_named_by_sku_and_nothing_is_written(api, admin, tea, order, everything):
    """409 with every product that is short; no other item is sold either."""
    cups, pots = api.product(admin, "CUP", price=1, stock=1), api.product(admin, "POT", price=1, stock=0)
    before = everything()
    assert refusal(order(item(tea), item(cups, 2), item(pots))) == (409, "OUT_OF_STOCK", {"CUP", "POT"})
    assert everything() == before


def test_without_enough_money_nothing_is_written(tea, order, everything):
    before = everything()
    assert refusal(order(item(tea, 5))) == (422, "INSUFFICIENT_FUNDS", set())
    assert everything() == before
    assert order(item(tea, 4)).status_code == 201


def test_a_product_is_paid_in_its_own_currency(api, admin, ada, tea, order, everything):
    dollars = api.account(ada, "USD", balance=1000, admin=admin)
    before = everything()
    assert refusal(order(item(tea), account=dollars)) == (422, "CURRENCY_MISMATCH", set())
    yen = api.product(admin, "YEN", currency="JPY")
    assert refusal(order(item(tea), item(yen))) == (422, "CURRENCY_MISMATCH", set())
    assert {**everything(), "products": before["products"], "outbox": before["outbox"]} == before


def test_an_order_is_paid_from_an_own_account_only(api, ada, grace, admin, purse, tea, everything):
    """404 for another user's account, for admins too, and for an internal or absent one."""
    house = next(a["id"] for a in api.get("/accounts", admin).json["data"] if a["ownerId"] is None)
    before = everything()
    for person, account in ((grace, purse), (admin, purse), (admin, house), (ada, house), (ada, ABSENT)):
        answer = api.post("/orders", person, {"accountId": account, "items": [item(tea)]})
        assert refusal(answer) == NOT_FOUND
    assert everything() == before


@pytest.mark.parametrize(("method", "path"), [("GET", "/orders"), ("POST", "/orders"), ("GET", f"/orders/{ABSENT}")])
def test_without_a_token_there_are_no_orders(api, method, path):
    assert refusal(api(method, path))[0] == 401


def test_only_its_owner_and_admins_see_an_order(api, ada, grace, admin, tea, order):
    """404 for others, with the same body as for an absent one."""
    placed = order(item(tea)).json["data"]
    for person in (ada, admin):
        assert api.get(f"/orders/{placed['id']}", person).json["data"] == placed
    foreign, absent, nonsense = (api.get(f"/orders/{which}", grace) for which in (placed["id"], ABSENT, "nonsense"))
    assert foreign.json["error"] == absent.json["error"] == nonsense.json["error"]
    assert refusal(foreign) == NOT_FOUND
    assert refusal(api.get(f"/orders/{placed['id']}?include=user", ada)) == wrong("include")


def test_users_list_their_orders_and_admins_all(api, ada, grace, admin, tea, order):
    """Newest first with their items, filtered by status and for admins by user; a wrong filter is named."""
    other = api.account(grace, balance=500, admin=admin)
    orders = [order(item(tea)).json["data"] for _ in range(3)]
    theirs = api.post("/orders", grace, {"accountId": other, "items": [item(tea)]}).json["data"]
    orders[0] = api.post(f"/orders/{orders[0]['id']}/cancel", ada).json["data"]
    orders[1] = api.post(f"/orders/{orders[1]['id']}/fulfil", admin).json["data"]

    def listed(query, person):
        return api.get(f"/orders{query}", person).json["data"]

    assert listed("", ada) == orders[::-1]
    assert listed("", grace) == [theirs]
    assert listed("", admin) == [theirs, *orders[::-1]]
    for status, mine in (("cancelled", orders[0]), ("fulfilled", orders[1]), ("placed", orders[2])):
        assert listed(f"?status={status}", ada) == [mine]
    assert listed("?status=placed", admin) == [theirs, orders[2]]
    assert listed(f"?userId={ada.id}&status=placed", admin) == [orders[2]]
    assert listed(f"?userId={grace.id}", admin) == [theirs]
    assert listed(f"?userId={ABSENT}", admin) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (f"userId={ABSENT}", "userId"), ("status=open", "status"), ("status=Placed", "status"), ("status=", "status"),
        ("status=placed&status=placed", "status"), ("limit=0", "limit"), ("cursor=x", "cursor"), ("page=1", "page"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_of_the_list_is_named(api, ada, query, field):
    """Only admins may use `userId`."""
    assert refusal(api.get(f"/orders?{query}", ada)) == wrong(field)


def test_the_list_comes_in_pages_and_a_cursor_is_bound_to_the_filter(api, ada, admin, tea, order):
    orders = [order(item(tea)).json["data"]["id"] for _ in range(3)]
    first = api.get("/orders?limit=2&status=placed", ada).json
    cursor = first["meta"]["pagination"]["nextCursor"]
    order(item(tea))
    second = api.get(f"/orders?limit=2&status=placed&cursor={cursor}", ada).json
    assert [row["id"] for page in (first, second) for row in page["data"]] == orders[::-1]
    assert second["meta"]["pagination"] == {"limit": 2, "nextCursor": None}
    for query, person in (("", ada), ("status=cancelled&", ada), ("status=placed&", admin)):
        assert refusal(api.get(f"/orders?{query}cursor={cursor}", person)) == wrong("cursor")
