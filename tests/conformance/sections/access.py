"""Access: which callers each route serves, and that a refusal reveals nothing."""

from tests.conformance.checks import check, check_each, expect, expect_data, expect_error, expect_reason
from tests.conformance.client import UNKNOWN_ID, Client, Skipped

NEED_A_USER = (
    "GET /users/me, PATCH /users/me, GET /auth/sessions, DELETE /auth/sessions, DELETE /auth/sessions/{id}, "
    "POST /auth/password, POST /accounts, GET /accounts, GET /accounts/{id}, GET /accounts/{id}/transactions, "
    "POST /transfers, GET /transactions/{id}, POST /orders, GET /orders, GET /orders/{id}, POST /orders/{id}/cancel, "
    "GET /users/{id}, PATCH /users/{id}"
).split(", ")
NEED_AN_ADMIN = (
    "GET /users, DELETE /users/{id}, POST /products, PATCH /products/{id}, POST /accounts/{id}/deposits, "
    "POST /accounts/{id}/withdrawals, POST /orders/{id}/fulfil, GET /audit"
).split(", ")
SELF_OR_ADMIN = ["GET /users/{id}", "PATCH /users/{id}"]


def method_and_path(route: str, id_: str = UNKNOWN_ID) -> list[str]:
    return route.replace("{id}", id_).split()


@check_each({route: route for route in NEED_A_USER + NEED_AN_ADMIN})
def without_a_token(api: Client, route: str) -> None:
    """A route for users or admins is 401 `missing` without a token, before its id and its body are looked at."""
    expect_reason(api(*method_and_path(route)), "missing")


@check_each({route: route for route in NEED_AN_ADMIN + SELF_OR_ADMIN})
def without_the_role(api: Client, route: str) -> None:
    """A route for admins is 403 for a user, before its id and its body are looked at."""
    for id_ in (UNKNOWN_ID, "no-id"):
        expect_error(api(*method_and_path(route, id_), api.grace), 403, "FORBIDDEN")


@check
def another_user_is_403_existing_or_not(api: Client) -> None:
    """`/users/{id}` of another user is 403 whether it exists or not, for a user without the role."""
    for id_ in (api.ada.id, UNKNOWN_ID):
        expect_error(api.get(f"/users/{id_}", api.grace), 403, "FORBIDDEN")


@check
def what_belongs_to_another_is_404(api: Client) -> None:
    """Another user's account, its statement, a transaction and an order are 404, as if they did not exist."""
    account, product = api.account(api.ada, 1000), api.product()
    items = [{"productId": product["id"], "quantity": 1}]
    order = expect_data(api.post("/orders", api.ada, {"accountId": account, "items": items}), 201)["id"]
    transaction = expect_data(api.get(f"/accounts/{account}/transactions", api.ada))[0]["id"]
    mine = f"/accounts/{account}"
    for path in (mine, f"{mine}/transactions", f"/transactions/{transaction}", f"/orders/{order}"):
        expect_data(api.get(path, api.ada))
        expect_error(api.get(path, api.grace), 404, "NOT_FOUND")
        expect_data(api.get(path, api.admin))
    expect_error(api.post(f"/orders/{order}/cancel", api.grace), 404, "NOT_FOUND")


@check
def the_money_of_another_cannot_be_spent(api: Client) -> None:
    """A transfer from another's account is 404, for admins too."""
    account, to = api.account(api.ada, 1000), api.account(api.grace)
    body = {"fromAccountId": account, "toAccountId": to, "amount": 1}
    for other in (api.grace, api.admin):
        expect_error(api.post("/transfers", other, body), 404, "NOT_FOUND")
    expect("the balance", 1000, api.balance(account, api.ada))


@check
def the_order_of_checks(api: Client) -> None:
    """Route before method before token before role before id before body before state."""
    expect_error(api.get("/nothing", headers={"Authorization": "Bearer x"}), 404, "NOT_FOUND")
    expect_error(api("PUT", "/products", headers={"Authorization": "Bearer x"}), 405, "METHOD_NOT_ALLOWED")
    expect_error(api.post("/products", api.grace, body=b"{"), 403, "FORBIDDEN")
    absent = api.patch(f"/products/{UNKNOWN_ID}", api.admin, body=b"{")
    expect_error(absent, 404, "NOT_FOUND")
    stale = api.patch(f"/products/{api.product()['id']}", api.admin, {"stock": -1}, headers={"If-Match": '"9"'})
    expect_error(stale, 422, "VALIDATION_ERROR")


@check
def an_admin_reads_every_account(api: Client) -> None:
    """An admin's `GET /accounts` takes `ownerId`; a user's is 422."""
    account, path = api.account(api.ada), f"/accounts?ownerId={api.ada.id}"
    expect("the newest account", account, expect_data(api.get(path, api.admin))[0]["id"])
    expect_error(api.get(path, api.grace), 422, "VALIDATION_ERROR", "ownerId")


@check
def the_last_admin_stays(api: Client) -> None:
    """The last active admin can neither lose the role nor be deactivated or deleted: 409."""
    admins = expect_data(api.get("/users?role=admin&pageSize=100", api.admin))
    if [user["id"] for user in admins if user["active"]] != [api.admin.id]:
        raise Skipped("there is more than one admin")
    path = f"/users/{api.admin.id}"
    expect_error(api.patch(path, api.admin, {"roles": ["user"]}), 409, "CONFLICT")
    expect_error(api.patch(path, api.admin, {"active": False}), 409, "CONFLICT")
    expect_error(api.delete(path, api.admin), 409, "CONFLICT")
