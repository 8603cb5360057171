"""An HTTP client of the service under test, and the users, accounts and products that checks need."""

import http.client
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

PASSWORD = "a quiet harbour"
UNKNOWN_ID = "0198c0de-0000-7000-8000-000000000000"  # of nothing
SECONDS = 60  # for an answer; a busy machine may be slow
SHOWN = 400  # characters of an answer
RETRIES = 60  # of a request that a rate limit refuses
LONGEST_PAUSE = 120  # seconds


class Skipped(Exception):
    """The check cannot be made here; the text says why."""


@dataclass(frozen=True)
class Answer:
    request: str  # such as "POST /api/v1/users"
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @cached_property
    def json(self) -> Any:
        """Raises ValueError, with the answer, if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise ValueError(f"no JSON: {self}") from None

    @property
    def data(self) -> Any:
        """Raises LookupError, with the answer, if it is no success."""
        if "data" not in self.json:
            raise LookupError(f"no data: {self}")
        return self.json["data"]

    @property
    def etag(self) -> str:
        return self.headers["ETag"] or ""

    def __str__(self) -> str:
        return f"{self.status} {self.body.decode('utf-8', 'replace')[:SHOWN]}".strip()


@dataclass(frozen=True)
class Person:
    """A user with a login."""

    id: str
    email: str
    access: str
    refresh: str


class Client:
    """Thread-safe. A path is below `/api/v1`, or whole if it starts with two slashes.

    A request that a rate limit refuses is sent again after `Retry-After`, RETRIES times at most and never with
    `patient=False`; `wait` is called with the seconds. `last_request` is for error messages.
    """

    def __init__(self, url: str, origin: str = "", wait: Callable[[float], None] = time.sleep) -> None:
        self.url = urlsplit(url)
        self.origin = origin  # that the server's CORS settings allow
        self.run = secrets.token_hex(4)  # in every address and SKU, so that a run can be repeated on the same database
        self.last_request = ""
        self._wait = wait
        self._admin: Person | None = None
        self._products = 0

    def __call__(
        self, method: str, path: str, by: Person | None = None, json_: Any = None, *, body: bytes | None = None,
        headers: Mapping[str, str] | None = None, patient: bool = True,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own: `by` a user, with `json_` or the bytes `body`."""
        sent = {"Authorization": f"Bearer {by.access}"} if by else {}
        if json_ is not None:
            body = json.dumps(json_).encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        whole = path[1:] if path.startswith("//") else f"/api/v1{path}"
        answer = self._exchange(method, whole, body, sent)
        for _ in range(RETRIES if patient else 0):
            if answer.status != 429:
                break
            self._wait(_pause(answer))
            answer = self._exchange(method, whole, body, sent)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        self.last_request = f"{method} {path}"
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.hostname or "", self.url.port, timeout=SECONDS)
        try:
            connection.request(method, self.url.path.rstrip("/") + path, body, {k: v for k, v in headers.items() if v})
            answer = connection.getresponse()
            return Answer(f"{method} {path}", answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, by: Person | None = None, **rest: Any) -> Answer:
        return self("GET", path, by, **rest)

    def post(self, path: str, by: Person | None = None, json_: Any = None, **rest: Any) -> Answer:
        return self("POST", path, by, json_, **rest)

    def patch(self, path: str, by: Person | None = None, json_: Any = None, **rest: Any) -> Answer:
        return self("PATCH", path, by, json_, **rest)

    def delete(self, path: str, by: Person | None = None, **rest: Any) -> Answer:
        return self("DELETE", path, by, **rest)

    # Users. Sign-up and login count under the limit `auth`, so checks share users where they can.

    def address(self, name: str) -> str:
        """An e-mail address of this run."""
        return f"{name.lower()}-{self.run}@example.com"

    def log_in(self, email: str, password: str = PASSWORD) -> Person:
        pair = self.post("/auth/login", json_={"email": email, "password": password}).data
        person = Person("", email, pair["accessToken"], pair["refreshToken"])
        return Person(self.get("/users/me", person).data["id"], email, person.access, person.refresh)

    def sign_up(self, name: str) -> Person:
        """A new user with a login."""
        self.post("/users", json_={"email": self.address(name), "password": PASSWORD, "name": name})
        return self.log_in(self.address(name))

    def log_in_admin(self, email: str, password: str) -> None:
        """Set `admin`. Raises LookupError or ValueError if there is no such login."""
        self._admin = self.log_in(email, password)

    @property
    def admin(self) -> Person:
        if self._admin is None:
            raise Skipped("needs --admin")
        return self._admin

    @cached_property
    def ada(self) -> Person:
        return self.sign_up("Ada")

    @cached_property
    def grace(self) -> Person:
        return self.sign_up("Grace")

    # Things.

    def account(self, of: Person, balance: int = 0, currency: str = "EUR") -> str:
        """The id of a new account; the admin deposits its balance."""
        account = str(self.post("/accounts", of, {"currency": currency}).data["id"])
        if balance:
            self.post(f"/accounts/{account}/deposits", self.admin, {"amount": balance}).data["id"]
        return account

    def balance(self, account: str, by: Person) -> int:
        return int(self.get(f"/accounts/{account}", by).data["balance"])

    def product(self, price: int = 250, stock: int = 10, **changes: Any) -> dict[str, Any]:
        """A new product with a SKU of its own."""
        self._products += 1
        sku = f"SKU-{self.run}-{self._products}"
        body = {"sku": sku, "name": "Tea", "unitPrice": price, "currency": "EUR", "stock": stock}
        return dict(self.post("/products", self.admin, body | changes).data)

    def stock(self, product: Mapping[str, Any]) -> int:
        return int(self.get(f"/products/{product['id']}").data["stock"])


def _pause(answer: Answer) -> float:
    """The seconds of `Retry-After`: from 1 to LONGEST_PAUSE, and 1 if it is not a number."""
    seconds = answer.headers.get("Retry-After", "")
    return float(min(max(int(seconds), 1), LONGEST_PAUSE)) if re.fullmatch("[0-9]{1,9}", seconds) else 1.0


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all calls: each runs in its own thread, and all start at the same moment."""
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        ready.wait(SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def times(count: int, call: Callable[..., T], *given: Any, **named: Any) -> list[T]:
    """The results of `count` equal calls, all at the same moment."""
    return at_once([partial(call, *given, **named)] * count)
