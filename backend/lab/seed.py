"""The users, accounts and products of the lab's own database. The page sends its requests as these users."""

from typing import Any

from werkzeug.test import Client

from app import App
from backend.lab.logins import Login, PasswordlessLogins
from backend.repositories import accounts, users
from backend.repositories.users import Credentials

API = "/api/v1"
PASSWORD = "a quiet harbour"  # noqa: S105 - of users of the lab's own database, shown on its page
NAMES = ("Root", "Ada", "Grace")  # Root is an admin
PRODUCTS = (("TEA", "Tea", 250, 100), ("CUP", "Cup", 900, 1))  # SKU, name, cents, stock


def email_of(name: str) -> str:
    return f"{name.lower()}@example.com"


def seed(app: App, logins: PasswordlessLogins) -> None:
    """Make each user, account and product that the database lacks. Idempotent."""
    for name in NAMES:
        if _credentials(logins, name) is None:
            (app.users.create_admin if name == "Root" else app.users.sign_up)(email_of(name), PASSWORD, name)
    opened = _log_in_all(logins)
    ids, root = _ids(logins, opened), opened.get("Root")
    if root is None:  # deactivated, after another user has become an admin
        return
    for sku, name, cents, stock in PRODUCTS:
        if sku.lower() not in ids:
            _post(app, root, "/products", sku=sku, name=name, unitPrice=cents, currency="EUR", stock=stock)
    for name in NAMES[1:]:
        if name in opened and _account_of(name) not in ids:
            account = _post(app, opened[name], "/accounts", currency="EUR")
            _post(app, root, f"/accounts/{account}/deposits", amount=1_000_00)


def tokens_and_ids(logins: PasswordlessLogins) -> dict[str, Any]:
    """A new token for each active user, and the ids that the page's examples name."""
    opened = _log_in_all(logins)
    tokens = {name: login.tokens.access_token for name, login in opened.items()}
    return {"tokens": tokens, "ids": _ids(logins, opened)}


def _credentials(logins: PasswordlessLogins, name: str) -> Credentials | None:
    with logins.database.read() as tx:
        return users.credentials_by_email(tx, email_of(name))


def _log_in_all(logins: PasswordlessLogins) -> dict[str, Login]:
    """New logins, by name. A request in the lab may have deactivated a user."""
    found = {name: _credentials(logins, name) for name in NAMES}
    return {name: logins.log_in(email_of(name)) for name, has in found.items() if has and has.user.active}


def _ids(logins: PasswordlessLogins, opened: dict[str, Login]) -> dict[str, str]:
    """Of the products, and of the oldest account of each user."""
    with logins.database.read() as tx:
        ids = {sku: str(id_) for sku, id_ in tx.rows("SELECT lower(sku), id FROM products WHERE sku IN ('TEA', 'CUP')")}
        for name in NAMES[1:]:
            if name in opened and (page := accounts.page(tx, opened[name].user_id, None, 1000)):
                ids[_account_of(name)] = page[-1].id
    return ids


def _account_of(name: str) -> str:
    return f"{name.lower()}Account"


def _post(app: App, login: Login, path: str, **body: Any) -> str:
    """The id of what the request made. Raises RuntimeError if it made nothing."""
    client, local = Client(app, use_cookies=False), {"REMOTE_ADDR": "127.0.0.1"}
    answer = client.post(f"{API}{path}", headers=login.headers, json=body, environ_overrides=local)
    if answer.status_code != 201:
        raise RuntimeError(f"POST {path}: {answer.text}")
    return str((answer.json or {})["data"]["id"])
