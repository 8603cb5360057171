"""Accounts and transfers: money is neither made nor lost."""

from functools import partial
from typing import Any

from tests.conformance.checks import check, expect, expect_data, expect_error
from tests.conformance.client import UNKNOWN_ID, Answer, Client, Person, at_once, times


def transfer(api: Client, by: Person, from_: str, to: str, amount: int = 1, **more: Any) -> Answer:
    return api.post("/transfers", by, {"fromAccountId": from_, "toAccountId": to, "amount": amount, **more})


@check
def an_account_is_opened(api: Client) -> None:
    """POST `/accounts` answers 201 with an empty Account of the caller."""
    account = expect_data(api.post("/accounts", api.ada, {"currency": "JPY"}), 201)
    expect("its fields", {"id", "ownerId", "currency", "balance", "createdAt"}, set(account))
    expect("its values", (api.ada.id, "JPY", 0), (account["ownerId"], account["currency"], account["balance"]))


@check
def deposits_and_withdrawals(api: Client) -> None:
    """An admin's deposit and withdrawal are Transactions with the system account on the other side."""
    account = api.account(api.ada)
    deposit = expect_data(api.post(f"/accounts/{account}/deposits", api.admin, {"amount": 900, "memo": "cash"}), 201)
    keys = {"id", "type", "fromAccountId", "toAccountId", "amount", "currency", "memo", "orderId", "createdAt"}
    expect("its fields", keys, set(deposit))
    expect("its values", ("deposit", account, 900, "cash", None),
           tuple(deposit[key] for key in ("type", "toAccountId", "amount", "memo", "orderId")))  # fmt: skip
    withdrawal = expect_data(api.post(f"/accounts/{account}/withdrawals", api.admin, {"amount": 300}), 201)
    expect("the system account", deposit["fromAccountId"], withdrawal["toAccountId"])
    expect("the balance", 600, api.balance(account, api.ada))
    answer = api.post(f"/accounts/{account}/withdrawals", api.admin, {"amount": 601})
    expect_error(answer, 422, "INSUFFICIENT_FUNDS")


@check
def a_transfer(api: Client) -> None:
    """A transfer moves money: both balances, both statements, and both owners see it."""
    mine, yours = api.account(api.ada, 1000), api.account(api.grace)
    moved = expect_data(transfer(api, api.ada, mine, yours, 400, memo="lunch"), 201)
    expect("type and memo", ("transfer", "lunch"), (moved["type"], moved["memo"]))
    expect("the balances", (600, 400), (api.balance(mine, api.ada), api.balance(yours, api.grace)))
    for person, account in ((api.ada, mine), (api.grace, yours)):
        expect("the newest transaction", moved, expect_data(api.get(f"/accounts/{account}/transactions", person))[0])
        expect("the transaction", moved, expect_data(api.get(f"/transactions/{moved['id']}", person)))


@check
def too_little_money(api: Client) -> None:
    """A transfer beyond the balance is 422 `INSUFFICIENT_FUNDS`, and nothing moves."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace)
    expect_error(transfer(api, api.ada, mine, yours, 101), 422, "INSUFFICIENT_FUNDS")
    expect("the balances", (100, 0), (api.balance(mine, api.ada), api.balance(yours, api.grace)))


@check
def currencies_do_not_mix(api: Client) -> None:
    """A transfer between currencies is 422 `CURRENCY_MISMATCH`."""
    euros, dollars = api.account(api.ada, 100), api.account(api.grace, currency="USD")
    expect_error(transfer(api, api.ada, euros, dollars), 422, "CURRENCY_MISMATCH")


@check
def a_missing_payee_burns_no_money(api: Client) -> None:
    """A transfer to an account that does not exist, or to an internal one, is 404, and nothing moves."""
    account = api.account(api.ada, 100)
    statement = expect_data(api.get(f"/accounts/{account}/transactions", api.ada))
    for payee in (UNKNOWN_ID, statement[0]["fromAccountId"]):
        expect_error(transfer(api, api.ada, account, payee, 50), 404, "NOT_FOUND")
    expect("the balance", 100, api.balance(account, api.ada))


@check
def a_deactivated_payee(api: Client) -> None:
    """A transfer to an account whose owner is deactivated is 404; a deposit 409."""
    mine, person = api.account(api.ada, 100), api.sign_up("Payee")
    theirs = api.account(person)
    expect_data(api.patch(f"/users/{person.id}", api.admin, {"active": False}))
    expect_error(transfer(api, api.ada, mine, theirs), 404, "NOT_FOUND")
    expect_error(api.post(f"/accounts/{theirs}/deposits", api.admin, {"amount": 1}), 409, "CONFLICT")


@check
def the_same_money_twenty_times_at_once(api: Client) -> None:
    """Of 20 transfers of 10 from an account with 100 at the same moment, ten succeed."""
    mine, yours = api.account(api.ada, 100), api.account(api.grace)
    answers = times(20, transfer, api, api.ada, mine, yours, 10)
    expect("POST /transfers, 20 at once", [201] * 10 + [422] * 10, sorted(answer.status for answer in answers))
    expect("the balances", (0, 100), (api.balance(mine, api.ada), api.balance(yours, api.grace)))


@check
def money_that_crosses(api: Client) -> None:
    """20 transfers from A to B beside 20 from B to A: all succeed, and none is lost."""
    mine, yours = api.account(api.ada, 1000), api.account(api.grace, 1000)
    there = [partial(transfer, api, api.ada, mine, yours, 7)] * 20
    back = [partial(transfer, api, api.grace, yours, mine, 5)] * 20
    expect("40 at once", [201] * 40, [answer.status for answer in at_once(there + back)])
    expect("the balances", (960, 1040), (api.balance(mine, api.ada), api.balance(yours, api.grace)))
