"""Orders: stock, payment and order in one transaction, and back."""

from typing import Any

from tests.conformance.checks import check, expect, expect_data, expect_error, expect_wrong
from tests.conformance.client import UNKNOWN_ID, Answer, Client, Person, times


def place(api: Client, by: Person, account: str, product: dict[str, Any], quantity: int = 1, **more: Any) -> Answer:
    items = [{"productId": product["id"], "quantity": quantity}]
    return api.post("/orders", by, {"accountId": account, "items": items, **more})


def statuses(answers: list[Answer]) -> list[int]:
    return sorted(answer.status for answer in answers)


@check
def an_order(api: Client) -> None:
    """An order takes stock and payment at the product's price, and shows its items."""
    product, account = api.product(price=250, stock=10), api.account(api.ada, 1000)
    order = expect_data(place(api, api.ada, account, product, 3), 201)
    keys = {"id", "userId", "accountId", "status", "currency", "total", "items", "createdAt", "updatedAt"}
    expect("its fields", keys, set(order))
    item = {"productId": product["id"], "sku": product["sku"], "name": "Tea", "quantity": 3, "unitPrice": 250}
    expect("status, total and items", ("placed", 750, [item]), (order["status"], order["total"], order["items"]))
    expect("balance and stock", (250, 7), (api.balance(account, api.ada), api.stock(product)))
    paid = expect_data(api.get(f"/accounts/{account}/transactions", api.ada))[0]
    expect("the payment", ("payment", 750, order["id"]), (paid["type"], paid["amount"], paid["orderId"]))
    expect("the order", order, expect_data(api.get(f"/orders/{order['id']}", api.ada)))


@check
def stock_that_is_short(api: Client) -> None:
    """An order beyond the stock is 409 `OUT_OF_STOCK`; details name the SKU; nothing changes."""
    product, account = api.product(price=1, stock=2), api.account(api.ada, 1000)
    expect_error(place(api, api.ada, account, product, 3), 409, "OUT_OF_STOCK", product["sku"])
    expect("balance and stock", (1000, 2), (api.balance(account, api.ada), api.stock(product)))


@check
def money_that_is_short(api: Client) -> None:
    """An order beyond the balance is 422 `INSUFFICIENT_FUNDS`; nothing changes."""
    product, account = api.product(price=600, stock=5), api.account(api.ada, 1000)
    expect_error(place(api, api.ada, account, product, 2), 422, "INSUFFICIENT_FUNDS")
    expect("balance and stock", (1000, 5), (api.balance(account, api.ada), api.stock(product)))


@check
def a_price_that_rose(api: Client) -> None:
    """A total beyond `maxTotal` is 409 `details.total`; nothing changes."""
    product, account = api.product(price=250), api.account(api.ada, 1000)
    expect_error(place(api, api.ada, account, product, 2, maxTotal=499), 409, "CONFLICT", "total")
    expect("the balance", 1000, api.balance(account, api.ada))
    expect_data(place(api, api.ada, account, product, 2, maxTotal=500), 201)


@check
def currencies_do_not_mix(api: Client) -> None:
    """An order paid from an account of another currency is 422 `CURRENCY_MISMATCH`."""
    product, account = api.product(), api.account(api.ada, 1000, currency="USD")
    expect_error(place(api, api.ada, account, product), 422, "CURRENCY_MISMATCH")


@check
def an_absent_product(api: Client) -> None:
    """An absent product in an order is 422 `details.items[n].productId`."""
    items = [{"productId": api.product()["id"], "quantity": 1}, {"productId": UNKNOWN_ID, "quantity": 1}]
    answer = api.post("/orders", api.ada, {"accountId": api.account(api.ada), "items": items})
    expect_wrong(answer, "items[1].productId")


@check
def the_account_of_another(api: Client) -> None:
    """Paying an order from another's account is 404, for admins too."""
    product, account = api.product(), api.account(api.ada, 1000)
    for other in (api.grace, api.admin):
        expect_error(place(api, other, account, product), 404, "NOT_FOUND")


@check
def a_cancelled_order(api: Client) -> None:
    """Cancelling refunds and restocks, once: a cancelled order can be neither cancelled nor fulfilled."""
    product, account = api.product(price=250, stock=10), api.account(api.ada, 1000)
    order = expect_data(place(api, api.ada, account, product, 3), 201)
    path = f"/orders/{order['id']}"
    expect("the status", "cancelled", expect_data(api.post(f"{path}/cancel", api.ada))["status"])
    expect("balance and stock", (1000, 10), (api.balance(account, api.ada), api.stock(product)))
    expect_error(api.post(f"{path}/cancel", api.ada, {}), 409, "CONFLICT")
    expect_error(api.post(f"{path}/fulfil", api.admin), 409, "CONFLICT")
    refund = expect_data(api.get(f"/accounts/{account}/transactions", api.ada))[0]
    expect("the refund", ("refund", 750, order["id"]), (refund["type"], refund["amount"], refund["orderId"]))


@check
def a_fulfilled_order(api: Client) -> None:
    """Only a placed order can be fulfilled, and a fulfilled one cannot be cancelled."""
    order = expect_data(place(api, api.ada, api.account(api.ada, 1000), api.product()), 201)
    path = f"/orders/{order['id']}"
    expect("the status", "fulfilled", expect_data(api.post(f"{path}/fulfil", api.admin))["status"])
    expect_error(api.post(f"{path}/cancel", api.ada), 409, "CONFLICT")


@check
def orders_by_status(api: Client) -> None:
    """GET `/orders` is the caller's list, newest first, with `status` as filter."""
    account, product = api.account(api.grace, 1000), api.product()
    made = [expect_data(place(api, api.grace, account, product), 201)["id"] for _ in range(3)]
    expect_data(api.post(f"/orders/{made[1]}/cancel", api.grace))
    for status, wanted in (("placed", [made[2], made[0]]), ("cancelled", [made[1]])):
        listed = expect_data(api.get(f"/orders?status={status}&limit=100", api.grace))
        expect(f"the {status} ones", wanted, [order["id"] for order in listed if order["id"] in made])
    expect_wrong(api.get("/orders?status=lost", api.grace), "status")
    expect_wrong(api.get(f"/orders?userId={api.ada.id}", api.grace), "userId")


@check
def twenty_for_the_last_item(api: Client) -> None:
    """Of 20 orders for the last item at the same moment, one is placed."""
    product, account = api.product(price=1, stock=1), api.account(api.ada, 1000)
    expect("POST /orders, 20 at once", [201] + [409] * 19, statuses(times(20, place, api, api.ada, account, product)))
    expect("balance and stock", (999, 0), (api.balance(account, api.ada), api.stock(product)))


@check
def ten_cancellations_at_once(api: Client) -> None:
    """Of ten cancellations of one order at the same moment, one refunds."""
    account = api.account(api.ada, 1000)
    order = expect_data(place(api, api.ada, account, api.product()), 201)
    answers = times(10, api.post, f"/orders/{order['id']}/cancel", api.ada)
    expect("POST cancel, ten at once", [200] + [409] * 9, statuses(answers))
    expect("the balance", 1000, api.balance(account, api.ada))
