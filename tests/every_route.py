"""One valid request for every route, and a filled database in which it succeeds: for tests of all routes."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from werkzeug.test import TestResponse

from app import App
from backend.openapi.page import SWAGGER_UI
from backend.settings import Settings
from backend.web.router import ADMIN, ANYONE, SELF_OR_ADMIN, USER, Access, Route
from tests.conftest import PASSWORD, SECRET, Api, Person
from tests.waiting import wait_until
from tests.wirings import make_app

API = "/api/v1"
MOVEMENT = '{"amount": 5}'
TRANSFER = '{"fromAccountId": "$account", "toAccountId": "$other_account", "amount": 5}'
ORDER = '{"accountId": "$account", "items": [{"productId": "$product", "quantity": 1}]}'
PRODUCT = '{"sku": "NEW", "name": "New", "unitPrice": 1, "currency": "EUR", "stock": 1}'
CHANGE = f'{{"name": "Changed", "email": "changed@example.com", "currentPassword": "{PASSWORD}"}}'
NEW_PASSWORD = f'{{"currentPassword": "{PASSWORD}", "newPassword": "another good one"}}'
RESET = '{"token": "$reset_token", "newPassword": "another good one"}'
LOGIN = f'{{"email": "owner@example.com", "password": "{PASSWORD}"}}'


class Valid(NamedTuple):
    """The access of a route, and a request that succeeds; `id` and `body` are templates of the names in the world."""

    access: Access
    id: str = ""
    body: str = ""


# One line for each route. The things that `id` and `body` name are created in `_filled_with_things`.
VALID = {
    f"POST {API}/users": Valid(ANYONE, body=f'{{"email": "new@example.com", "password": "{PASSWORD}", "name": "New"}}'),
    f"GET {API}/users": Valid(ADMIN),
    f"GET {API}/users/me": Valid(USER),
    f"PATCH {API}/users/me": Valid(USER, body=CHANGE),
    f"GET {API}/users/{{id}}": Valid(SELF_OR_ADMIN, "$owner"),
    f"PATCH {API}/users/{{id}}": Valid(SELF_OR_ADMIN, "$owner", CHANGE),
    f"DELETE {API}/users/{{id}}": Valid(ADMIN, "$owner"),
    f"POST {API}/auth/login": Valid(ANYONE, body=LOGIN),
    f"POST {API}/auth/refresh": Valid(ANYONE, body='{"refreshToken": "$refresh_token"}'),
    f"POST {API}/auth/logout": Valid(ANYONE, body='{"refreshToken": "$refresh_token"}'),
    f"GET {API}/auth/sessions": Valid(USER),
    f"DELETE {API}/auth/sessions": Valid(USER),
    f"DELETE {API}/auth/sessions/{{id}}": Valid(USER, "$session"),
    f"POST {API}/auth/password": Valid(USER, body=NEW_PASSWORD),
    f"POST {API}/auth/password-reset": Valid(ANYONE, body='{"email": "owner@example.com"}'),
    f"POST {API}/auth/password-reset/confirm": Valid(ANYONE, body=RESET),
    f"GET {API}/products": Valid(ANYONE),
    f"POST {API}/products": Valid(ADMIN, body=PRODUCT),
    f"GET {API}/products/{{id}}": Valid(ANYONE, "$product"),
    f"PATCH {API}/products/{{id}}": Valid(ADMIN, "$product", '{"stock": 7}'),
    f"POST {API}/accounts": Valid(USER, body='{"currency": "EUR"}'),
    f"GET {API}/accounts": Valid(USER),
    f"GET {API}/accounts/{{id}}": Valid(USER, "$account"),
    f"POST {API}/accounts/{{id}}/deposits": Valid(ADMIN, "$account", MOVEMENT),
    f"POST {API}/accounts/{{id}}/withdrawals": Valid(ADMIN, "$account", MOVEMENT),
    f"GET {API}/accounts/{{id}}/transactions": Valid(USER, "$account"),
    f"POST {API}/transfers": Valid(USER, body=TRANSFER),
    f"GET {API}/transactions/{{id}}": Valid(USER, "$transaction"),
    f"POST {API}/orders": Valid(USER, body=ORDER),
    f"GET {API}/orders": Valid(USER),
    f"GET {API}/orders/{{id}}": Valid(USER, "$order"),
    f"POST {API}/orders/{{id}}/cancel": Valid(USER, "$order"),
    f"POST {API}/orders/{{id}}/fulfil": Valid(ADMIN, "$order"),
    f"GET {API}/audit": Valid(ADMIN),
    "GET /healthz": Valid(ANYONE),
    "GET /readyz": Valid(ANYONE),
    "GET /openapi.json": Valid(ANYONE),
    "GET /docs": Valid(ANYONE),
    "GET /docs/page.js": Valid(ANYONE),
    "GET /docs/page.css": Valid(ANYONE),
    f"GET /docs/{SWAGGER_UI}.js": Valid(ANYONE),
    f"GET /docs/{SWAGGER_UI}.css": Valid(ANYONE),
}


@dataclass(frozen=True)
class World:
    """A filled database file, to be copied, and its users and things."""

    path: Path
    people: dict[str, Person]
    names: dict[str, str]

    def filled(self, template: str) -> str:
        return Template(template).substitute(self.names)


def key_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def routes_of(app: App) -> dict[str, Route]:
    return {key_of(route): route for route in app.routes}


def send(
    api: Api, world: World, key: str, by: Person | None = None, *,
    method: str = "", id: str = "", body: str = "", query: str = "", **changes: Any,
) -> TestResponse:  # fmt: skip
    """The valid request for a route, with changes."""
    usual, path = key.split()
    valid = VALID[key]
    path = path.replace("{id}", world.filled(id or valid.id)) + query
    text = world.filled(body or valid.body)
    if text and "data" not in changes:
        changes = {"data": text, "content_type": "application/json"} | changes
    return api(method or usual, f"/{path}", by, **changes)


def allowed_caller(world: World, key: str) -> Person | None:
    """A caller with no more rights than the route needs."""
    return {ANYONE: None, ADMIN: world.people["admin"]}.get(VALID[key].access, world.people["owner"])


def build_world(path: Path) -> World:
    """Fill the migrated database at `path`: an owner of everything, a stranger, an admin, a deactivated user."""
    settings = Settings(path, (SECRET,), bcrypt_rounds=4, rate_limit_default=None, rate_limit_auth=None)
    app = make_app(settings)
    api = Api(app)
    admin = api.admin("Admin")
    people = {name: api.sign_up(name.title()) for name in ("owner", "stranger", "deactivated")} | {"admin": admin}
    idle_account = api.account(people["deactivated"])
    api.patch(f"/users/{people['deactivated'].id}", admin, {"active": False})
    people["forged"] = Person("", "", people["owner"].access[:-4] + "AAAA", "")
    names = _filled_with_things(api, admin, people["owner"], people["stranger"])
    api.post("/auth/password-reset", json={"email": people["owner"].email})
    connection = sqlite3.connect(path)
    # Otherwise the relays of the copies would deliver them.
    wait_until(lambda: not connection.execute("SELECT 1 FROM deliveries").fetchone())
    [(reset_id,)] = connection.execute("SELECT id FROM password_resets").fetchall()
    [(names["shop"],)] = connection.execute("SELECT id FROM accounts WHERE kind = 'shop' AND balance > 0").fetchall()
    names["reset_token"] = app.credentials.reset_token(reset_id)
    names |= {"idle_account": idle_account} | {name: person.id for name, person in people.items()}
    connection.close()
    app.close()
    return World(path, people, names)


def _filled_with_things(api: Api, admin: Person, owner: Person, stranger: Person) -> dict[str, str]:
    account, other = api.account(owner, balance=10_000, admin=admin), api.account(stranger)
    product = api.product(admin)
    transfer = {"fromAccountId": account, "toAccountId": other, "amount": 250}
    order = {"accountId": account, "items": [{"productId": product, "quantity": 2}]}
    return {
        "account": account,
        "other_account": other,
        "dollars": api.account(stranger, "USD"),
        "product": product,
        "dear_product": api.product(admin, "DEAR", price=10**9),
        "dollar_product": api.product(admin, "DOLLAR", currency="USD"),
        "transfer": api.post("/transfers", owner, transfer).json["data"]["id"],
        "transaction": api.get(f"/accounts/{account}/transactions", owner).json["data"][-1]["id"],  # the deposit
        "order": api.post("/orders", owner, order).json["data"]["id"],
        "session": api.get("/auth/sessions", owner).json["data"][0]["id"],
        "refresh_token": owner.refresh,
    }
