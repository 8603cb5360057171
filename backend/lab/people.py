"""The people of the lab's own database, whom its page can send requests as, and what they have."""

from typing import Any

from werkzeug.test import Client

from app import App
from backend.errors import NotFound
from backend.lab.backstage import Backstage, Login
from backend.repositories import accounts, products

API = "/api/v1"
PASSWORD = "a quiet harbour"  # noqa: S105 - of users of the lab's own database, shown on its page
NAMES = ("Root", "Ada", "Grace")  # Root is an admin
PRODUCTS = (("TEA", "Tea", 250, 100), ("CUP", "Cup", 900, 1))  # SKU, name, cents, stock
SKUS = {sku for sku, *_ in PRODUCTS}


def email_of(name: str) -> str:
    return f"{name.lower()}@example.com"


def seed(app: App, backstage: Backstage) -> None:
    """Make the people, their accounts and the products, in a database that has none. Idempotent."""
    try:
        backstage.log_in(email_of(NAMES[-1]))
    except NotFound:
        app.users.create_admin(email_of("Root"), PASSWORD, "Root")
        for name in NAMES[1:]:
            app.users.sign_up(email_of(name), PASSWORD, name)
        root = backstage.log_in(email_of("Root"))
        for sku, name, cents, stock in PRODUCTS:
            _post(app, root, "/products", sku=sku, name=name, unitPrice=cents, currency="EUR", stock=stock)
        for name in NAMES[1:]:
            account = _post(app, backstage.log_in(email_of(name)), "/accounts", currency="EUR")
            _post(app, root, f"/accounts/{account}/deposits", amount=1_000_00)


def cast(backstage: Backstage) -> dict[str, Any]:
    """A new token for each of the people, and the ids that the page's examples name."""
    logins = {name: backstage.log_in(email_of(name)) for name in NAMES}
    with backstage.database.read() as tx:
        ids = {found.sku.lower(): found.id for found in products.page(tx, None, 1000) if found.sku in SKUS}
        for name in NAMES[1:]:
            ids[f"{name.lower()}Account"] = accounts.page(tx, logins[name].user_id, None, 1000)[-1].id
    return {"tokens": {name: login.tokens.access_token for name, login in logins.items()}, "ids": ids}


def _post(app: App, login: Login, path: str, **body: Any) -> str:
    """The id of what the request made. Raises RuntimeError if it made nothing."""
    client, local = Client(app, use_cookies=False), {"REMOTE_ADDR": "127.0.0.1"}
    answer = client.post(f"{API}{path}", headers=login.headers, json=body, environ_overrides=local)
    if answer.status_code != 201:
        raise RuntimeError(f"POST {path}: {answer.text}")
    return str((answer.json or {})["data"]["id"])
