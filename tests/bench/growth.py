"""The cost of years of use: pages of a long ledger and of many users, their orders, writes, many client addresses.

All run through the whole application in this process; the client addresses have their own process.
"""

import contextlib
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from backend.infrastructure.keyring import Keyring
from backend.web.pagination import CursorQuery, Cursors
from backend.web.request import Request
from tests.bench.grown_database import grow, id_of
from tests.bench.measure import Figure, Size, microseconds
from tests.bench.service import SECRET, Environ, ask, asked_for_json, environ, folder, service
from tests.conftest import PASSWORD, Api, Person

ROOT = Path(__file__).parents[2]
PAGE = 20
SMALL = 500  # rows, users
WRITES = (3, 40)  # calls a turn, turns a round
PLENTY = 10**9


@dataclass(frozen=True)
class Grown:
    """A service with `rows` and `users` added."""

    api: Api
    admin: Person
    ada: Person  # her account is the busy one
    busy: str  # the account with half of the ledger
    users: int


def figures(size: Size) -> Iterator[Figure]:
    with (
        folder() as path,
        grown(path / "small.db", SMALL, SMALL) as small,
        grown(path / "grown.db", size.rows, size.users) as big,
    ):
        yield Figure("growth", "page of 20 by cursor", "µs", microseconds(by_cursor(small, big), 50, 25, size.rounds))
        yield Figure("growth", "page of 20 by offset", "µs", microseconds(by_offset(small, big), 1, 25, size.rounds))
        yield from orders_of_users(big, size)
        yield from writes(small, big, size)
    yield strangers(size)


@contextlib.contextmanager
def grown(database: Path, rows: int, users: int) -> Iterator[Grown]:
    with service(database) as api:
        ada, admin = api.sign_up("Ada"), api.admin()
        busy = api.account(ada, balance=PLENTY, admin=admin)
        for number in range(3):
            api.product(admin, f"SKU-{number}", stock=PLENTY)
    grow(database, busy, rows, users)
    with service(database) as api:
        yield Grown(api, admin, ada, busy, users)


def by_cursor(small: Grown, big: Grown) -> dict[str, Callable[[], object]]:
    """`GET /accounts/{id}/transactions`: the newest 20, and at the far end the oldest 20."""
    cursor = cursor_after(environ("GET", f"/accounts/{big.busy}/transactions"), id_of(2 * PAGE))
    pages = {
        "small, first page": (small, ""), "grown, first page": (big, ""), "grown, last page": (big, f"cursor={cursor}"),
    }  # fmt: skip
    return {
        name: page(whose, environ("GET", f"/accounts/{whose.busy}/transactions", whose.admin, query))
        for name, (whose, query) in pages.items()
    }


def by_offset(small: Grown, big: Grown) -> dict[str, Callable[[], object]]:
    """`GET /users`: it counts the total and skips the rows before the page."""
    pages = {
        "small, first page": (small, 1), "grown, first page": (big, 1), "grown, last page": (big, big.users // PAGE),
    }  # fmt: skip
    return {
        name: page(whose, environ("GET", "/users", whose.admin, f"page={number}"))
        for name, (whose, number) in pages.items()
    }


def page(whose: Grown, request: Environ) -> Callable[[], object]:
    """A call that requests the page, checked once to return a full page."""
    if len(asked_for_json(whose.api.app, request)["data"]) != PAGE:
        raise RuntimeError(f"no full page: {request['RAW_URI']}")
    return partial(ask, whose.api.app, request)


def cursor_after(request: Environ, last_id: str) -> str:
    """The cursor that an admin gets with a page that ends with `last_id`."""
    rows = [Row(last_id), Row("")]  # the second tells that there is a next page
    given = Cursors(Keyring([SECRET])).page(Request(request), CursorQuery(limit=1), lambda before, limit: rows)
    return str(given.pagination["nextCursor"])


@dataclass(frozen=True)
class Row:
    id: str


def orders_of_users(big: Grown, size: Size) -> Iterator[Figure]:
    """`GET /users?include=orders`: ten times as many users, in the same number of statements."""
    queries = {f"{count} users": f"pageSize={count}&include=orders" for count in (10, 100)}
    calls = {
        name: partial(ask, big.api.app, environ("GET", "/users", big.admin, query)) for name, query in queries.items()
    }
    yield Figure("growth: users with their orders", "time", "µs", microseconds(calls, 1, 25, size.rounds))


def writes(small: Grown, big: Grown, size: Size) -> Iterator[Figure]:
    """Writes that touch what has grown: accounts, orders, expired keys and logins."""
    many = math.prod(WRITES) * size.rounds
    jobs: dict[str, Callable[[Grown], Iterator[Environ]]] = {
        "deposit": deposits, "order": orders, "cancellation": lambda whose: iter([*cancellations(whose, many)]),
        "keyed transfer": keyed_transfers, "login": logins,
    }  # fmt: skip
    for name, requests in jobs.items():
        calls = {kind: each_of(whose, requests(whose)) for kind, whose in (("small", small), ("grown", big))}
        yield Figure("growth: writes", name, "µs", microseconds(calls, *WRITES, size.rounds))


def each_of(whose: Grown, requests: Iterator[Environ]) -> Callable[[], object]:
    """A call that sends the next request, which must succeed."""
    return lambda: asked_for_json(whose.api.app, next(requests))


def deposits(whose: Grown) -> Iterator[Environ]:
    while True:
        yield environ("POST", f"/accounts/{whose.busy}/deposits", whose.admin, body={"amount": 1})


def orders(whose: Grown) -> Iterator[Environ]:
    (product, *_) = whose.api.get("/products").json["data"]
    while True:
        items = [{"productId": product["id"], "quantity": 1}]
        yield environ("POST", "/orders", whose.ada, body={"accountId": whose.busy, "items": items})


def cancellations(whose: Grown, many: int) -> Iterator[Environ]:
    """Of orders that are placed here."""
    for placing in itertools.islice(orders(whose), many):
        order = asked_for_json(whose.api.app, placing)["data"]["id"]
        yield environ("POST", f"/orders/{order}/cancel", whose.ada)


def keyed_transfers(whose: Grown) -> Iterator[Environ]:
    body = {"fromAccountId": whose.busy, "toAccountId": id_of(0), "amount": 1}
    for number in itertools.count():
        yield environ("POST", "/transfers", whose.ada, body=body) | {"HTTP_IDEMPOTENCY_KEY": f"bench-{number}"}


def logins(whose: Grown) -> Iterator[Environ]:
    while True:
        yield environ("POST", "/auth/login", body={"email": whose.ada.email, "password": PASSWORD})


def strangers(size: Size) -> Figure:
    """Memory of a process before and after requests from many new client addresses, measured by the process."""
    command = [sys.executable, "-m", "tests.bench.strangers", str(size.strangers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    before, after = map(float, done.stdout.split())
    rounds = {"before": [before], f"after {size.strangers:,} clients": [after]}
    return Figure("growth: distinct clients", "RSS", "MB", rounds)
