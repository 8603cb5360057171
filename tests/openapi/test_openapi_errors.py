"""Every error that `/openapi.json` documents can be provoked, and every one that is provoked is documented.

Errors common to all routes are provoked on each; those of one route are in the table `SPECIAL`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from werkzeug.test import TestResponse

from backend.settings import Limit
from backend.web.router import ANYONE
from tests.conftest import PASSWORD, Api
from tests.every_route import API, VALID, World, allowed_caller, send
from tests.openapi.documented import Document
from tests.outsider import Outsider

# Answers of the HTTP server itself; tests/production tests them.
SERVERS_OWN = {(408, "REQUEST_TIMEOUT"), (414, "URI_TOO_LONG"), (431, "HEADERS_TOO_LARGE")}
SERVERS_OWN_OF_GET = SERVERS_OWN | {
    (400, "MALFORMED_JSON")
}  # the server alone reads the body of a GET and finds it truncated

ABSENT = "0198c0de-0000-7000-8000-000000000000"


class Special(NamedTuple):
    """An error of one route, and the caller, body and id that provoke it."""

    key: str
    status: int
    code: str
    caller: str
    body: str = ""
    id: str = ""


def transfer(target: str, amount: int) -> str:
    return f'{{"fromAccountId": "$account", "toAccountId": "{target}", "amount": {amount}}}'


def order(product: str, quantity: int) -> str:
    return f'{{"accountId": "$account", "items": [{{"productId": "{product}", "quantity": {quantity}}}]}}'


TAKEN = f'{{"email": "STRANGER@example.com", "currentPassword": "{PASSWORD}"}}'
SPECIAL = [
    Special(f"PATCH {API}/users/me", 403, "FORBIDDEN", "owner", '{"roles": ["admin"]}'),
    Special(f"PATCH {API}/users/me", 409, "CONFLICT", "owner", TAKEN),
    Special(f"PATCH {API}/users/{{id}}", 403, "FORBIDDEN", "owner", '{"active": true}'),
    Special(f"PATCH {API}/users/{{id}}", 409, "CONFLICT", "owner", TAKEN),
    Special(f"PATCH {API}/users/{{id}}", 409, "CONFLICT", "admin", '{"active": false}', "$admin"),
    Special(f"DELETE {API}/users/{{id}}", 409, "CONFLICT", "admin", id="$admin"),
    Special(f"POST {API}/accounts/{{id}}/withdrawals", 422, "INSUFFICIENT_FUNDS", "admin", '{"amount": 1000000}'),
    Special(f"POST {API}/accounts/{{id}}/deposits", 409, "CONFLICT", "admin", id="$idle_account"),
    Special(f"POST {API}/transfers", 404, "NOT_FOUND", "owner", transfer(ABSENT, 5)),
    Special(f"POST {API}/transfers", 422, "INSUFFICIENT_FUNDS", "owner", transfer("$other_account", 10**6)),
    Special(f"POST {API}/transfers", 422, "CURRENCY_MISMATCH", "owner", transfer("$dollars", 5)),
    Special(f"POST {API}/orders", 409, "OUT_OF_STOCK", "owner", order("$product", 999)),
    Special(f"POST {API}/orders", 409, "CONFLICT", "owner", order("$product", 2).replace("]", '], "maxTotal": 1')),
    Special(f"POST {API}/orders", 422, "INSUFFICIENT_FUNDS", "owner", order("$dear_product", 1)),
    Special(f"POST {API}/orders", 422, "CURRENCY_MISMATCH", "owner", order("$dollar_product", 1)),
    Special(f"POST {API}/orders/{{id}}/cancel", 422, "INSUFFICIENT_FUNDS", "owner"),  # the shop has no money
]


@pytest.fixture
def document(api: Api) -> Document:
    return Document(api.get("//openapi.json").json)


def bad_requests(api: Api, world: World, key: str) -> Iterator[TestResponse]:
    """Mistakes that every route refuses, by a caller whom the route admits."""
    by = allowed_caller(world, key)
    yield send(api, world, key, by, environ_overrides={"CONTENT_LENGTH": "1x"})
    yield send(api, world, key, by, headers={"Transfer-Encoding": "chunked"})
    yield send(api, world, key, by, body="[" + " " * 65_536)
    yield send(api, world, key, by, headers={"Content-Encoding": "gzip"})
    yield send(api, world, key, by, body="{")
    yield send(api, world, key, by, query="?unknown=1")


def refusals(api: Api, world: World, key: str) -> Iterator[TestResponse]:
    """A bad token, missing rights, an absent resource."""
    yield send(api, world, key, world.people["forged"])
    if VALID[key].access is not ANYONE:
        yield send(api, world, key, world.people["stranger"])
    if "{id}" in key:
        yield send(api, world, key, world.people["admin"], id=ABSENT)


def repetitions(api: Api, world: World, document: Document, key: str) -> Iterator[TestResponse]:
    """A key of another request, another version, an action that was taken already."""
    by = allowed_caller(world, key)
    headers = document.parameters(key, "header")
    if "Idempotency-Key" in headers:
        assert api.post("/accounts", by, {"currency": "CHF"}, key="used").status_code == 201
        yield send(api, world, key, by, headers={"Idempotency-Key": "used"})
    if "If-Match" in headers:
        yield send(api, world, key, by, headers={"If-Match": '"99"'})
    yield from (send(api, world, key, by) for _ in range(2))


def troubles(make_api: Any, world: World, key: str, outsider: Outsider) -> Iterator[TestResponse]:
    """Too many requests, an unexpected exception, no database. With this token every route reads the database."""
    limited = make_api(rate_limit_default=Limit(1, 3600))
    yield from (send(limited, world, key, world.people["admin"], query="?unknown=1") for _ in range(2))
    broken = make_api(cache_size=0)
    with outsider.without("sessions"):
        yield send(broken, world, key, world.people["admin"])
    yield send(make_api(**outsider.nowhere()), world, key, world.people["admin"])


@pytest.mark.parametrize("key", VALID)
def test_the_documented_errors_are_those_that_can_be_provoked(make_api, world, document, outsider, key):
    """Each has the documented status, code, headers and body."""
    provoked = {(special.status, special.code) for special in SPECIAL if special.key == key}
    api = make_api()
    for answers in (
        bad_requests(api, world, key), refusals(api, world, key), repetitions(api, world, document, key),
        troubles(make_api, world, key, outsider),
    ):  # fmt: skip
        for answer in answers:
            document.check(key, answer)
            if answer.status_code >= 400:
                provoked.add((answer.status_code, answer.json["error"]["code"]))
    servers_own = SERVERS_OWN_OF_GET if key.startswith("GET") else SERVERS_OWN
    assert provoked == document.errors(key) - servers_own


@pytest.mark.parametrize("special", SPECIAL, ids=lambda special: f"{special.key} {special.code}")
def test_a_route_has_the_errors_of_its_own(api, world, document, special):
    shops = {"id": "$shop", "body": '{"amount": 500}'}
    emptied = send(api, world, f"POST {API}/accounts/{{id}}/withdrawals", world.people["admin"], **shops)
    assert emptied.status_code == 201
    answer = send(api, world, special.key, world.people[special.caller], body=special.body, id=special.id)
    assert (answer.status_code, answer.json["error"]["code"]) == (special.status, special.code)
    document.check(special.key, answer)


def test_a_locked_database_is_a_documented_answer(make_api, world, document, outsider):
    """An outside writer holds the lock: every write is 503 with Retry-After, none is 500."""
    api = make_api(busy_timeout_seconds=0.2)
    writes = [key for key in VALID if not key.startswith("GET")]
    with outsider.locked():
        for key in writes:
            answer = send(api, world, key, allowed_caller(world, key))
            assert (key, answer.status_code) == (key, 503)
            document.check(key, answer)
