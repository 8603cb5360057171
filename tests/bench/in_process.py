"""Microseconds a call in this process: what the code costs, with no server and no network around it.

The others only find the route and say hello, which is the cost of the framework alone. Ours also verifies the token,
asks the cache and SQLite whether it is still valid, counts the limit and writes the log.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import falcon
import flask
from werkzeug.wrappers import Request, Response

from tests.bench import bare
from tests.bench.measure import OURS, Figure, Size, microseconds
from tests.bench.service import Application, Environ, ask, asked_for_json, environ, folder, service
from tests.conftest import Api, Person

GROUP = "in process"
# Calls a turn, and turns a round. A turn is long enough to include the work of other threads (log, events).
READS, WRITES = (1500, 8), (60, 4)


def figures(size: Size) -> Iterator[Figure]:
    with folder() as path, service(path / "app.db") as api:
        ada, admin = api.sign_up("Ada"), api.admin()
        yield Figure(GROUP, "one user", "µs", microseconds(one_user(api, ada), *READS, size.rounds))
        yield Figure(GROUP, "product page", "µs", microseconds(product_page(api, admin), *READS, size.rounds))
        yield Figure(GROUP, "transfer", "µs", microseconds(transfer(api, ada, admin), *WRITES, size.rounds))


def one_user(api: Api, ada: Person) -> dict[str, Callable[[], object]]:
    """`GET /users/{id}` of the caller, answered from the cache."""
    request = environ("GET", f"/users/{ada.id}", ada)
    others: dict[str, Application] = {"bare Werkzeug": bare_werkzeug, "Flask": flask_hello(), "Falcon": falcon_hello()}
    answers = [asked_for_json(api.app, request)["data"]["email"], *(ask(other, request) for other in others.values())]
    if answers != [ada.email, b"hello", b"hello", b"hello"]:
        raise RuntimeError(f"a contender does not answer as it should: {answers}")
    contenders: dict[str, Application] = {OURS: api.app, "bare WSGI": bare.application, **others}
    return {name: partial(ask, contender, request) for name, contender in contenders.items()}


def product_page(api: Api, admin: Person) -> dict[str, Callable[[], object]]:
    """`GET /products`: 20 of them, without a token."""
    for number in range(25):
        api.product(admin, f"SKU-{number}")
    request = environ("GET", "/products")
    if len(asked_for_json(api.app, request)["data"]) != 20:
        raise RuntimeError("the page is not full")
    return {OURS: lambda: ask(api.app, request), "bare WSGI": lambda: ask(bare.application, request)}


def transfer(api: Api, ada: Person, admin: Person) -> dict[str, Callable[[], object]]:
    """`POST /transfers`: each is a new one, and durable before the answer."""
    ids = {"fromAccountId": api.account(ada, balance=10**9, admin=admin), "toAccountId": api.account(ada)}
    numbers = itertools.count()

    def request() -> Environ:
        return environ("POST", "/transfers", ada, body={**ids, "amount": 1, "memo": f"number {next(numbers)}"})

    asked_for_json(api.app, request())
    return {OURS: lambda: ask(api.app, request()), "bare WSGI": lambda: ask(bare.application, request())}


def bare_werkzeug(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Werkzeug's request and response, with nothing between them."""
    return Response(b"hello" if Request(environ).path else b"")(environ, start_response)


def flask_hello() -> flask.Flask:
    application = flask.Flask("hello")
    application.add_url_rule("/api/v1/users/<id>", view_func=hello)
    return application


def hello(id: str) -> str:
    return "hello"


def falcon_hello() -> "falcon.App[Any, Any]":
    application = falcon.App()
    application.add_route("/api/v1/users/{id}", Hello())
    return application


class Hello:
    def on_get(self, request: falcon.Request, response: falcon.Response, id: str) -> None:
        response.text = "hello"
