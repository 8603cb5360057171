"""Idempotency keys: a request that is repeated happens once."""

from typing import Any

from tests.conformance.checks import check, check_each, expect, expect_data, expect_error, expect_header
from tests.conformance.client import Answer, Client, Person, times


def pay(api: Client, by: Person, from_: str, to: str, amount: int, key: str) -> Answer:
    body: dict[str, Any] = {"fromAccountId": from_, "toAccountId": to, "amount": amount}
    return api.post("/transfers", by, body, headers={"Idempotency-Key": f"{key}-{api.run}"})


@check
def a_repeated_request(api: Client) -> None:
    """The same user, route and body again: the first answer's status, `data` and `Location`, with
    `Idempotency-Replayed: true`, and no second effect."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace)
    first, second = (pay(api, api.ada, mine, yours, 10, "repeated") for _ in range(2))
    expect("the data of the second answer", expect_data(first, 201), expect_data(second, 201))
    expect_header(second, "Location", first.headers.get("Location"))
    expect_header(first, "Idempotency-Replayed", None)
    expect_header(second, "Idempotency-Replayed", "true")
    expect("the balance", 90, api.balance(mine, api.ada))


@check
def another_body(api: Client) -> None:
    """Another body under that key is 422 `IDEMPOTENCY_KEY_REUSED`."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace)
    expect_data(pay(api, api.ada, mine, yours, 10, "body"), 201)
    expect_error(pay(api, api.ada, mine, yours, 11, "body"), 422, "IDEMPOTENCY_KEY_REUSED")


@check
def another_route(api: Client) -> None:
    """Another route under that key is 422 `IDEMPOTENCY_KEY_REUSED`."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace)
    expect_data(pay(api, api.ada, mine, yours, 10, "route"), 201)
    key = {"Idempotency-Key": f"route-{api.run}"}
    answer = api.post("/accounts", api.ada, {"currency": "EUR"}, headers=key)
    expect_error(answer, 422, "IDEMPOTENCY_KEY_REUSED")


@check
def another_user(api: Client) -> None:
    """Keys of one user mean nothing to another."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace, 100)
    expect_data(pay(api, api.ada, mine, yours, 10, "user"), 201)
    expect_data(pay(api, api.grace, yours, mine, 20, "user"), 201)


@check
def a_failure_is_not_remembered(api: Client) -> None:
    """A failed attempt leaves no key behind: once there is money, the same request succeeds."""
    mine, yours = api.account(api.ada), api.account(api.grace)
    expect_error(pay(api, api.ada, mine, yours, 10, "failure"), 422, "INSUFFICIENT_FUNDS")
    expect_data(api.post(f"/accounts/{mine}/deposits", api.admin, {"amount": 10}), 201)
    expect_data(pay(api, api.ada, mine, yours, 10, "failure"), 201)


@check
def twenty_at_once(api: Client) -> None:
    """20 requests with one key at the same moment: one effect, and all get its answer."""
    mine, yours = api.account(api.ada, 1000), api.account(api.grace)
    answers = times(20, pay, api, api.ada, mine, yours, 10, "twenty")
    expect("POST /transfers, 20 at once", [201] * 20, [answer.status for answer in answers])
    expect("transactions made", 1, len({answer.data["id"] for answer in answers}))
    expect("the balances", (990, 10), (api.balance(mine, api.ada), api.balance(yours, api.grace)))


@check_each({path: path for path in ("/accounts", "/accounts/{account}/deposits", "/accounts/{account}/withdrawals",
                                     "/orders", "/orders/{order}/cancel", "/orders/{order}/fulfil")})  # fmt: skip
def other_routes_take_keys(api: Client, path: str) -> None:
    """POST `/accounts`, `/orders`, deposits, withdrawals, cancel and fulfil take an Idempotency-Key too."""
    admin, account = api.admin, api.account(api.ada, 1000)
    order = {"accountId": account, "items": [{"productId": api.product()["id"], "quantity": 1}]}
    body = {"accounts": {"currency": "EUR"}, "orders": order, "deposits": {"amount": 5}, "withdrawals": {"amount": 5}}
    last = path.rpartition("/")[2]
    if "{order}" in path:
        path = path.format(order=expect_data(api.post("/orders", api.ada, order), 201)["id"])
    by = admin if last in ("deposits", "withdrawals", "fulfil") else api.ada
    key = {"Idempotency-Key": f"{last}-other-{api.run}"}
    first, second = (api.post(path.format(account=account), by, body.get(last, {}), headers=key) for _ in range(2))
    expect("the second answer", (first.status, first.data), (second.status, second.data))
    expect_header(second, "Idempotency-Replayed", "true")


@check_each({"a blank": "a b", "a comma": "a,b", "256 characters": "x" * 256})
def a_bad_key(api: Client, key: str) -> None:
    """A key that is not 1 to 255 visible ASCII characters without a comma is 400 `BAD_REQUEST`."""
    answer = api.post("/accounts", api.ada, {"currency": "EUR"}, headers={"Idempotency-Key": key})
    expect_error(answer, 400, "BAD_REQUEST")


@check
def a_key_that_no_route_reads(api: Client) -> None:
    """The header is ignored on routes that take no key."""
    answer = api.patch("/users/me", api.ada, {"name": "Ada"}, headers={"Idempotency-Key": "a b"})
    expect("the name", "Ada", expect_data(answer)["name"])
    expect_header(answer, "Idempotency-Replayed", None)
