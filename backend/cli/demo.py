"""A tour of the API: three users on a server of its own, whose database is deleted at the end.

Each request and its answer are printed in short. The tour ends at the first answer that is not the expected one.
"""

import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backend.settings import VARIABLES

PASSWORD = secrets.token_urlsafe(16)


class Client:
    """Makes the requests and prints them; exits at an answer that is not the expected one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers = 0

    def ask(
        self, name: str, method: str, path: str, expected: int, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[Any, dict[str, str]]:
        """One request; the answer's `data` or `error`, and its headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if body is not None else {})}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        content = json.loads(text) if text else {}
        shown = content.get("data", content.get("error", content if "openapi" not in content else "the whole contract"))
        print(f"  {name:6} {method:6} {path[:60]:60} → {answer.status} {_short(shown)}", flush=True)
        if answer.status != expected:
            sys.exit(f"expected {expected}, got {answer.status}: {text}")
        self.answers += 1
        return shown, dict(answer.getheaders())


class User:
    """A user; requests carry the token once the user has logged in."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name
        self.email = f"{name.lower()}@example.com"
        self.tokens: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    def __call__(self, method: str, path: str, expected: int, body: Any = None, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.tokens:
            sent["Authorization"] = f"Bearer {self.tokens['accessToken']}"
        data, self.headers = self._client.ask(self.name, method, f"/api/v1{path}", expected, body, sent)
        return data

    def log_in(self) -> None:
        self.tokens = {}
        self.tokens = self("POST", "/auth/login", 200, {"email": self.email, "password": PASSWORD})


def run() -> None:
    """Run the tour. Exits with 1 and one line if an answer is not the expected one."""
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as port:
        client = Client(port)
        root, ada, grace = (User(client, name) for name in ("Root", "Ada", "Grace"))
        _users(client, root, ada, grace)
        product = _shop(client, root)
        account = _money(root, ada, grace)
        _orders(root, ada, account, product)
        _sessions(ada)
        _refusals(ada, grace, account)
        print(f"\nAll {client.answers} answers were the expected ones.")


def _users(client: Client, root: User, ada: User, grace: User) -> None:
    _say("The service answers, and describes itself.")
    client.ask("", "GET", "/healthz", 200)
    client.ask("", "GET", "/openapi.json", 200)
    _say("Ada and Grace sign up and log in. The command line has made Root, an admin.")
    for user in (ada, grace):
        user("POST", "/users", 201, {"email": user.email, "password": PASSWORD, "name": user.name})
        user.log_in()
    root.log_in()
    me = ada("PATCH", "/users/me", 200, {"name": "Ada Lovelace"})
    ada("GET", f"/users/{me['id']}", 304, If_None_Match=ada.headers["ETag"])
    root("GET", "/users?q=lovelace&include=orders", 200)


def _shop(client: Client, root: User) -> str:
    _say("Root adds a product, which is public.")
    product = {"sku": "TEA-1", "name": "Tea", "unitPrice": 250, "currency": "EUR", "stock": 10}
    made = root("POST", "/products", 201, product)
    root("POST", "/products", 409, product)
    root("PATCH", f"/products/{made['id']}", 200, {"stock": 12}, If_Match='"1"')
    root("PATCH", f"/products/{made['id']}", 412, {"stock": 5}, If_Match='"1"')
    client.ask("", "GET", "/api/v1/products?limit=5", 200)
    return str(made["id"])


def _money(root: User, ada: User, grace: User) -> str:
    _say("A deposit brings money in, a transfer moves it. A request with an idempotency key takes effect once.")
    hers = str(ada("POST", "/accounts", 201, {"currency": "EUR"})["id"])
    other = grace("POST", "/accounts", 201, {"currency": "EUR"})["id"]
    root("POST", f"/accounts/{hers}/deposits", 201, {"amount": 2000, "memo": "cash"}, Idempotency_Key="cash-1")
    root("POST", f"/accounts/{hers}/deposits", 201, {"amount": 2000, "memo": "cash"}, Idempotency_Key="cash-1")
    transfer = {"fromAccountId": hers, "toAccountId": other, "amount": 500, "memo": "lunch"}
    moved = ada("POST", "/transfers", 201, transfer, Idempotency_Key="lunch-1")
    ada("POST", "/transfers", 422, {**transfer, "amount": 501}, Idempotency_Key="lunch-1")
    grace("GET", f"/transactions/{moved['id']}", 200)
    grace("POST", "/transfers", 422, {**transfer, "fromAccountId": other, "toAccountId": hers, "amount": 9999})
    ada("GET", f"/accounts/{hers}/transactions?limit=1", 200)
    if ada("GET", f"/accounts/{hers}", 200)["balance"] != 1500:
        sys.exit("a deposit was repeated under its key")
    return hers


def _orders(root: User, ada: User, account: str, product: str) -> None:
    _say("Ada orders: stock and payment in one transaction. Cancelling returns both.")
    order = {"accountId": account, "items": [{"productId": product, "quantity": 2}]}
    first = ada("POST", "/orders", 201, order)
    ada("POST", "/orders", 409, {**order, "items": [{"productId": product, "quantity": 11}]})
    ada("POST", f"/orders/{first['id']}/cancel", 200)
    second = ada("POST", "/orders", 201, order)
    ada("POST", f"/orders/{second['id']}/fulfil", 403)
    root("POST", f"/orders/{second['id']}/fulfil", 200)
    ada("POST", f"/orders/{second['id']}/cancel", 409)
    ada("GET", "/orders?status=fulfilled", 200)


def _sessions(ada: User) -> None:
    _say("Ada's refresh token changes at each use. For ten seconds a repeated request gets the same answer.")
    old = ada.tokens["refreshToken"]
    again = [ada("POST", "/auth/refresh", 200, {"refreshToken": old})["refreshToken"] for _ in range(2)]
    if again[0] != again[1]:
        sys.exit("the repeated refresh got another token")
    ada("GET", "/auth/sessions", 200)
    ada("POST", "/auth/logout", 204, {"refreshToken": again[0]})
    ada("GET", "/users/me", 401)
    ada.log_in()


def _refusals(ada: User, grace: User, account: str) -> None:
    _say("Refusals: every wrong field is named, and other users' resources are 404.")
    ada("POST", "/users", 422, {"email": "no-address", "password": "short", "roles": ["admin"]})
    grace("GET", f"/accounts/{account}", 404)
    grace("GET", "/users", 403)
    grace("GET", "/users/", 404)
    grace("DELETE", "/transfers", 405)
    grace("GET", "/orders?limit=-1", 422)


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    """Run a server whose database is in `folder` and holds an admin; yields its port.

    It gets no setting of the caller's environment, so it posts to no webhook and sends no mail.
    """
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {
        "DATABASE_URL": f"sqlite:///{folder}/demo.db", "BIND": "127.0.0.1:0", "ADMIN_PASSWORD": PASSWORD,
        "BCRYPT_ROUNDS": "10", "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    app = [sys.executable, str(Path(__file__).parents[2] / "app.py")]
    for command in (["migrate"], ["create-admin", "root@example.com"]):
        if subprocess.run([*app, *command], env=environment, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(1)  # the command has printed why
    with subprocess.Popen([*app, "serve"], env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""  # `… on http://127.0.0.1:PORT/docs`
            address = re.search(r":(\d+)/docs", line)
            if not address:
                sys.exit(1)  # the server has printed why
            yield int(address[1])
        finally:
            server.terminate()
            server.wait()  # before its folder is deleted


def _say(text: str) -> None:
    print(f"\n— {text}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"
