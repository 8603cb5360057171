"""The whole application under a real gunicorn, with users that have accounts."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import SECRET, Api, Person
from tests.production.gunicorn_server import Server, gunicorn
from tests.production.real_service import APPLICATION


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    data: Any  # of the envelope; None for an error
    seconds: float


class Service:
    """A running server, and Ada and Grace, each with money in an account."""

    def __init__(self, server: Server, api: Api) -> None:
        self.server = server
        root = api.admin()
        self.ada, self.grace = api.sign_up("Ada"), api.sign_up("Grace")
        self.source = api.account(self.ada, balance=1_000_000, admin=root)
        self.target = api.account(self.grace)
        self.product = api.product(root)
        api.app.close()  # from here on, only the server uses the file

    def ask(self, method: str, path: str, by: Person | None = None, json_body: Any = None) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as ask:
            return ask(method, path, by, json_body)

    @contextmanager
    def connect(self, timeout: float = 30) -> Iterator[Callable[..., Answer]]:
        """A connection, and so one worker, for many requests. Raises TimeoutError if an answer takes longer."""
        with closing(http.client.HTTPConnection(*self.server.address, timeout=timeout)) as connection:

            def ask(method: str, path: str, by: Person | None = None, json_body: Any = None) -> Answer:
                began = time.monotonic()
                body = None if json_body is None else json.dumps(json_body)
                headers = (by.headers if by else {}) | ({"Content-Type": "application/json"} if body else {})
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                envelope = json.loads(answer.read() or b"{}")
                data = envelope.get("data")
                return Answer(answer.status, dict(answer.headers), data, time.monotonic() - began)

            yield ask

    def transfer(self, amount: int = 1) -> Answer:
        body = {"fromAccountId": self.source, "toAccountId": self.target, "amount": amount}
        return self.ask("POST", "/api/v1/transfers", self.ada, body)

    def balance(self) -> Answer:
        """Grace's balance, read from the database and not from a cache."""
        return self.ask("GET", f"/api/v1/accounts/{self.target}", self.grace)


@contextmanager
def furnished_service(
    log: Path,
    api: Api,
    application: str = APPLICATION,
    errors: int | None = None,
    **environment: str,
) -> Iterator[Service]:
    """By default one worker of four threads, on the database of `api`: `app.db` beside `log`."""
    settings = {
        "JWT_SECRETS": SECRET, "RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "off", "BCRYPT_ROUNDS": "4",
        "BUSY_TIMEOUT_SECONDS": "2",
    }  # fmt: skip
    with gunicorn(log, application=application, errors=errors, **settings | environment) as server:
        yield Service(server, api)
