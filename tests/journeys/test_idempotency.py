"""Idempotency keys over HTTP: a repeated request has no second effect and gets the first answer."""

import hashlib
import json

import pytest

from tests.answers import error_of

DAY = 24 * 3600
ROUTES = ["accounts", "deposits", "withdrawals", "transfers", "orders", "cancel", "fulfil"]
REUSED = (422, "IDEMPOTENCY_KEY_REUSED")


def replayable(answer):
    """What a replay must repeat byte for byte: status, Location and `data`."""
    data, _, _ = answer.data.partition(b',"meta":')
    return answer.status_code, answer.headers.get("Location"), data


def is_replay(answer):
    return answer.headers.get("Idempotency-Replayed") == "true"


@pytest.fixture
def purse(api, ada, admin):
    return api.account(ada, balance=2000, admin=admin)


@pytest.fixture
def tea(api, admin):
    return api.product(admin, "TEA", price=250, stock=10)


@pytest.fixture
def requests(api, ada, grace, admin, purse, tea):
    """A request to each route that takes a key: path, user, body."""
    other = api.account(grace)
    placing = {"accountId": purse, "items": [{"productId": tea, "quantity": 1}]}
    order = api.post("/orders", ada, placing).json["data"]["id"]
    return {
        "accounts": ("/accounts", ada, {"currency": "EUR"}),
        "deposits": (f"/accounts/{purse}/deposits", admin, {"amount": 5, "memo": '"ü\u2028\\ 🍵'}),
        "withdrawals": (f"/accounts/{purse}/withdrawals", admin, {"amount": 5}),
        "transfers": ("/transfers", ada, {"fromAccountId": purse, "toAccountId": other, "amount": 5}),
        "orders": ("/orders", ada, placing),
        "cancel": (f"/orders/{order}/cancel", ada, None),
        "fulfil": (f"/orders/{order}/fulfil", admin, None),
    }


@pytest.fixture
def attempt(api, requests):
    """Send one of the requests: `attempt("transfers", key="k")`, with another user or body if given."""

    def attempt(route, by=None, **changed):
        path, person, body = requests[route]
        return api("POST", path, by or person, **{"json": body, **changed})

    return attempt


@pytest.fixture
def everything(api):
    """All that a second effect would change."""

    def everything():
        with api.app.database.snapshot() as tx:
            tables = ("products", "accounts", "entries", "orders", "order_items", "outbox", "idempotency_keys")
            return {table: tx.rows(f"SELECT * FROM {table}") for table in tables}

    return everything


@pytest.mark.parametrize("route", ROUTES)
def test_the_same_request_again_has_no_second_effect_and_the_first_answer(attempt, everything, route):
    """Status, Location and data byte for byte, marked as a replay, however often it is sent."""
    first = attempt(route, key="k")
    assert first.status_code in (200, 201), first.text
    assert not is_replay(first)
    after_one = everything()
    for _ in range(2):
        again = attempt(route, key="k")
        assert replayable(again) == replayable(first)
        assert is_replay(again)
    assert everything() == after_one


@pytest.mark.parametrize("route", ["accounts", "deposits", "withdrawals", "transfers", "orders"])
def test_without_a_key_or_under_another_each_request_has_its_effect(attempt, route):
    answers = [attempt(route), attempt(route), attempt(route, key="k"), attempt(route, key="K")]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert not any(map(is_replay, answers))
    assert len({answer.json["data"]["id"] for answer in answers}) == 4


@pytest.mark.parametrize(("first", "then"), [("cancel", "fulfil"), ("fulfil", "cancel")])
def test_a_replay_shows_the_first_answer_not_the_present_state(api, admin, attempt, first, then):
    """The account as it was opened, although it holds money now; the order as it was settled."""
    opened = attempt("accounts", key="a")
    api.post(f"{opened.headers['Location'].removeprefix('/api/v1')}/deposits", admin, {"amount": 7})
    assert replayable(attempt("accounts", key="a")) == replayable(opened)
    settled = attempt(first, key="s")
    assert error_of(attempt(then, by=admin, key="t")) == (409, "CONFLICT")
    assert replayable(attempt(first, key="s")) == replayable(settled)


@pytest.mark.parametrize("route", ["accounts", "deposits", "withdrawals", "transfers", "orders"])
def test_another_body_under_the_key_is_refused(attempt, requests, everything, route):
    """422 for another meaning, and for the same meaning in other bytes."""
    _, _, body = requests[route]
    other = {**body, "currency": "USD"} if route == "accounts" else {**body, "amount": 6}
    if route == "orders":
        other = {**body, "items": [{**body["items"][0], "quantity": 2}]}
    first = attempt(route, key="k")
    after_one = everything()
    assert error_of(attempt(route, key="k", json=other)) == REUSED
    spaced = {"json": None, "data": json.dumps(body, indent=1), "content_type": "application/json"}
    assert error_of(attempt(route, key="k", **spaced)) == REUSED
    assert replayable(attempt(route, key="k")) == replayable(first)
    assert everything() == after_one


def test_no_body_and_an_empty_object_are_different_bodies(attempt):
    assert attempt("cancel", key="k").status_code == 200
    assert error_of(attempt("cancel", key="k", json={})) == REUSED


def test_another_route_under_the_key_is_refused(attempt, everything):
    """Each other route, and the same route of another account or order."""
    attempt("deposits", key="k")
    attempt("accounts", key="k")
    before = everything()
    for route in set(ROUTES) - {"deposits", "accounts"}:
        assert error_of(attempt(route, key="k")) == REUSED
    assert everything() == before


def test_the_same_body_for_another_account_is_another_request(api, admin, ada, purse):
    savings = api.account(ada)
    first, second = (
        api.post(f"/accounts/{account}/deposits", admin, {"amount": 5}, key="k") for account in (purse, savings)
    )
    assert (first.status_code, error_of(second)) == (201, REUSED)
    assert api.balance(savings, ada) == 0


def test_users_do_not_share_keys(api, ada, grace):
    """The same key, route and body of another user is another request."""
    answers = [api.post("/accounts", person, {"currency": "EUR"}, key="k") for person in (ada, grace)]
    assert [answer.json["data"]["ownerId"] for answer in answers] == [ada.id, grace.id]
    assert not any(map(is_replay, answers))


@pytest.mark.parametrize(
    ("route", "broken"), [("deposits", {"amount": 0}), ("transfers", {"amount": 1}), ("accounts", {"currency": "?"})]
)
def test_an_invalid_request_leaves_no_key(attempt, route, broken):
    """422, and the key is still free for a valid body."""
    assert error_of(attempt(route, key="k", json=broken)) == (422, "VALIDATION_ERROR")
    answer = attempt(route, key="k")
    assert (answer.status_code, is_replay(answer)) == (201, False)


def test_a_request_refused_by_a_rule_leaves_no_key(api, ada, grace, admin, purse, tea, everything):
    """First money, then stock is short: the same request with the same key succeeds once there is enough."""
    order = {"accountId": purse, "items": [{"productId": tea, "quantity": 11}]}
    before = everything()
    assert error_of(api.post("/orders", ada, order, key="k")) == (409, "OUT_OF_STOCK")
    api.patch(f"/products/{tea}", admin, {"stock": 11})
    assert error_of(api.post("/orders", ada, order, key="k")) == (422, "INSUFFICIENT_FUNDS")
    assert everything()["idempotency_keys"] == before["idempotency_keys"] == []
    api.post(f"/accounts/{purse}/deposits", admin, {"amount": 750})
    placed = api.post("/orders", ada, order, key="k")
    assert (placed.status_code, is_replay(placed)) == (201, False)
    assert replayable(api.post("/orders", ada, order, key="k")) == replayable(placed)


def test_a_request_that_was_answered_503_leaves_no_key(make_api, outsider):
    """While another program holds the database; afterwards the same request has its effect."""
    api = make_api(busy_timeout_seconds=1)
    ada = api.sign_up("Ada")
    with outsider.locked():
        answer = api.post("/accounts", ada, {"currency": "EUR"}, key="k")
        assert error_of(answer) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) >= 1
    answer = api.post("/accounts", ada, {"currency": "EUR"}, key="k")
    assert (answer.status_code, is_replay(answer)) == (201, False)


def test_a_key_lives_24_hours_by_the_clock(api, ada, clock):
    """A replay a minute before the end; then the request has its effect again, and the old key is overwritten."""
    first = api.post("/accounts", ada, {"currency": "EUR"}, key="k")
    clock.advance(DAY - 60)
    assert replayable(api.post("/accounts", api.log_in(ada.email), {"currency": "EUR"}, key="k")) == replayable(first)
    clock.advance(60)
    second = api.post("/accounts", api.log_in(ada.email), {"currency": "EUR"}, key="k")
    assert (second.status_code, is_replay(second)) == (201, False)
    assert second.json["data"]["id"] != first.json["data"]["id"]
    with api.app.database.snapshot() as tx:
        [(key,)] = tx.rows("SELECT key FROM idempotency_keys")
    assert key == hashlib.sha256(f"{ada.id} k".encode()).digest()


def test_the_database_holds_no_key_as_it_was_sent(attempt, outsider):
    """A client may put an address or a token into one."""
    attempt("accounts", key="lin@example.com")
    assert b"lin@example.com" not in outsider.stored()


@pytest.mark.parametrize("key", ["k", "!", "~", "0" * 255, '"quoted;=key"'])
def test_a_key_is_any_visible_ascii(attempt, key):
    assert attempt("accounts", key=key).status_code == 201
    assert is_replay(attempt("accounts", key=key))


@pytest.mark.parametrize("route", ROUTES)
def test_an_invalid_key_is_refused(attempt, everything, route):
    """400 BAD_REQUEST, and no effect. Two header lines arrive joined by a comma."""
    before = everything()
    for key in ("", " ", "a b", "a,b", "a, b", ",", "0" * 256, "ü", "a\tb", "a\x7f", "\x00"):
        answer = attempt(route, environ_overrides={"HTTP_IDEMPOTENCY_KEY": key})
        assert error_of(answer) == (400, "BAD_REQUEST"), key
    assert everything() == before


def test_other_routes_ignore_the_key(api, admin, ada, tea):
    """It is neither checked nor stored."""
    new = {"sku": "CUP", "name": "Cup", "unitPrice": 1, "currency": "EUR", "stock": 1}
    assert [api.post("/products", admin, new, key="k").status_code for _ in range(2)] == [201, 409]
    for stock in (3, 4):
        changed = api.patch(f"/products/{tea}", admin, {"stock": stock}, key="k")
        assert (changed.json["data"]["stock"], is_replay(changed)) == (stock, False)
    nonsense = {"environ_overrides": {"HTTP_IDEMPOTENCY_KEY": ","}}
    assert api.get("/accounts", ada, **nonsense).status_code == 200
    assert api.patch("/users/me", ada, {"name": "New"}, **nonsense).status_code == 200
