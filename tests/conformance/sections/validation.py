"""Validation: every wrong field is named at once, and what texts may hold."""

import unicodedata
from typing import Any

from tests.conformance.checks import Broken, check, check_each, expect, expect_data, expect_wrong
from tests.conformance.client import UNKNOWN_ID, Client

OTHER_ID = UNKNOWN_ID.replace("8000", "8001")
LONG = "x" * 101
ITEM = {"productId": UNKNOWN_ID, "quantity": 1}
# route → (a wrong body, the fields that are wrong)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "POST /users": ({"email": "no", "password": "short", "name": " ", "roles": []}, "email password name roles"),
    "POST /auth/login": ({}, "email password"),
    "POST /auth/refresh": ({"refreshToken": 5}, "refreshToken"),
    "POST /auth/logout": ({}, "refreshToken"),
    "POST /auth/password": ({"currentPassword": 1}, "currentPassword newPassword"),
    "POST /auth/password-reset": ({"email": None}, "email"),
    "POST /auth/password-reset/confirm": ({"token": "", "newPassword": "x" * 257}, "token newPassword"),
    "PATCH /users/me": ({"name": LONG, "email": "a@b", "colour": 1}, "name email colour"),
    "POST /accounts": ({"currency": "eur", "owner": 1}, "currency owner"),
    "POST /transfers": ({"amount": 0, "memo": "x" * 501}, "fromAccountId toAccountId amount memo"),
    "POST /orders": ({"accountId": "x", "items": [ITEM | {"quantity": 1001}, {}, ITEM], "maxTotal": 0},
                     "accountId items[0].quantity items[1].productId items[1].quantity items[2].productId maxTotal"),
}  # fmt: skip
WRONG_FOR_ADMINS: dict[str, tuple[dict[str, Any], str]] = {
    "POST /products": ({"sku": "", "unitPrice": 2.5, "currency": "euro", "stock": -1},
                       "sku name unitPrice currency stock"),
    "PATCH /products/{product}": ({"name": "", "unitPrice": 0, "stock": 10**9 + 1, "sku": "x"},
                                  "name unitPrice stock sku"),
    "POST /accounts/{account}/deposits": ({"amount": -1, "memo": 5}, "amount memo"),
    "POST /accounts/{account}/withdrawals": ({"amount": 10**12 + 1, "note": ""}, "amount note"),
    "PATCH /users/{user}": ({"roles": ["king"], "active": "yes", "password": "x"}, "roles[0] active password"),
}  # fmt: skip


@check_each({route: (route, *case) for route, case in WRONG.items()})
def all_wrong_fields_at_once(api: Client, case: tuple[str, dict[str, Any], str]) -> None:
    """`details` has one entry per wrong field, all of them at once; keys are paths such as `items[0].quantity`."""
    route, body, fields = case
    method, path = route.split()
    expect_wrong(api(method, path, api.ada, body), *fields.split())


@check_each({route: (route, *case) for route, case in WRONG_FOR_ADMINS.items()})
def all_wrong_fields_of_an_admin(api: Client, case: tuple[str, dict[str, Any], str]) -> None:
    """`details` has one entry per wrong field, all of them at once."""
    route, body, fields = case
    method, template = route.split()
    admin = api.admin
    path = template.format(product=api.product()["id"], account=api.account(api.ada), user=api.ada.id)
    expect_wrong(api(method, path, admin, body), *fields.split())


@check
def fifty_details_at_most(api: Client) -> None:
    """`details` has 50 entries at most."""
    answer = api.post("/accounts", api.ada, {"currency": "EUR"} | {f"x{n}": n for n in range(60)})
    expect("the number of details", 50, len(answer.json["error"]["details"]))


@check_each({"blanks": "  Ada \t", "decomposed": "A\u030angstro\u0308m", "100 characters": "y" * 100, "emoji": "👋🏽"})
def a_good_name(api: Client, name: str) -> None:
    """Strings are trimmed of surrounding white space and NFC-normalised."""
    kept = unicodedata.normalize("NFC", name.strip())
    expect("the name", kept, expect_data(api.patch("/users/me", api.ada, {"name": name}))["name"])


@check_each({"empty": "", "blank": " \u3000 ", "NUL": "a\0b", "a control character": "a\x1bb", "101 characters": LONG,
             "a bidirectional control": "abc\u202edef", "nothing visible": "\u200b\u2060", "a number": 5,
             "a line break": "a\nb"})  # fmt: skip
def a_bad_name(api: Client, name: object) -> None:
    """A name has 1 to 100 characters, at least one of them visible, no control and no bidirectional ones."""
    expect_wrong(api.patch("/users/me", api.ada, {"name": name}), "name")


@check_each({"no @": "ada", "one label": "ada@example", "a blank": "a da@example.com", "two @": "a@b@example.com",
             "an encoded word": "=?utf-8?q?a?=@example.com", "too long": "a" * 64 + "@" + "b" * 60 + ".c" * 80,
             "a list": "a@example.com,b@example.com", "a name": "Ada <ada@example.com>"})  # fmt: skip
def a_bad_address(api: Client, email: str) -> None:
    """An e-mail address has at most 254 characters, a domain of two labels and no encoded word."""
    expect_wrong(api.patch("/users/me", api.ada, {"email": email}), "email")


@check_each({"common": "password", "short": "1234567", "blank": " " * 12, "NUL": "a\0bcdefgh"})
def a_bad_password(api: Client, password: str) -> None:
    """A password has 8 to 256 characters, no NUL, and is not on the list of common ones."""
    body = {"token": "x", "newPassword": password}
    expect_wrong(api.post("/auth/password-reset/confirm", json_=body), "newPassword")


@check
def a_password_that_others_know(api: Client) -> None:
    """A password is none of the e-mail's local part and the name."""
    for password in (api.address("known").partition("@")[0], "Lady Lovelace"):
        body = {"email": api.address("known"), "password": password, "name": "Lady Lovelace"}
        expect_wrong(api.post("/users", json_=body), "password")


@check_each({"none": [], "51": [ITEM] * 51, "no list": ITEM})
def items_of_an_order(api: Client, items: Any) -> None:
    """An order has 1 to 50 items."""
    answer = api.post("/orders", api.ada, {"accountId": UNKNOWN_ID, "items": items})
    details = answer.json["error"].get("details", {})
    if answer.status != 422 or not any(name.startswith("items") for name in details):
        raise Broken(answer.request, "422 that names items", answer)


@check
def a_transfer_to_the_same_account(api: Client) -> None:
    """A transfer from an account to itself is 422."""
    body = {"fromAccountId": UNKNOWN_ID, "toAccountId": UNKNOWN_ID, "amount": 1}
    expect_wrong(api.post("/transfers", api.ada, body), "toAccountId")
