"""A traced request shows what ran, in order, and no secret; it is answered as without the lab."""

import json
import re
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from backend.infrastructure.cache import LruCache
from backend.lab.calls import recorded
from backend.lab.seams import TracedCache
from backend.lab.trace import current
from backend.lab.wiring import traced_app
from backend.settings import Limit
from tests.at_once import asleep, at_once
from tests.conftest import PASSWORD, SECRET, UNKNOWN_ID, Api
from tests.every_route import VALID, allowed_caller, send
from tests.wirings import make_app

TRANSFER = [
    "POST /api/v1/transfers", "request_ids", "client_addresses", "access_log", "error_responses", "framing", "routing",
    "Router.find", "authentication", "Logins.identify", "Tokens.verify", "get identity", "read", "sessions.identity",
    "SELECT sessions.id", "RateLimits.middleware", "hit default: user", "dispatch", "endpoint", "read_body",
    "TransactionRoutes.create_transfer", "Ledger.transfer", "transaction", "wait for the write lock, BEGIN IMMEDIATE",
    "users.active_of_session", "accounts.by_ids", "SELECT id, owner_id", "once", "idempotency_keys.find", "Ledger.move",
    "transactions.insert", "INSERT INTO transactions", "accounts.add_to_balance", "UPDATE accounts",
    "EventBus.publish", "outbox.insert", "INSERT INTO outbox", "idempotency_keys.put", "COMMIT", "EventBus.publish",
]  # fmt: skip


def names(seen):
    return [span["name"] for span in seen["spans"]]


def of_layer(seen, layer):
    return [span for span in seen["spans"] if span["layer"] == layer]


def outcomes(seen, layer="cache"):
    return {span["name"].split()[1]: span["detail"]["outcome"] for span in of_layer(seen, layer) if span["detail"]}


@pytest.fixture
def rich(api, ada, grace, admin):
    """Accounts of Ada, with 1,000, and of Grace."""
    return api.account(ada, balance=1000, admin=admin), api.account(grace)


def transfer(api, by, accounts, amount=5, **rest):
    body = {"fromAccountId": accounts[0], "toAccountId": accounts[1], "amount": amount}
    return api.post("/transfers", by, body, **rest)


def test_a_transfer_passes_every_layer_in_order(api, ada, rich, seen):
    told = seen(transfer(api, ada, rich, key="lunch-1"))
    rest = iter(names(told))
    assert [name for name in TRANSFER if not any(each.startswith(name) for each in rest)] == []
    assert len(of_layer(told, "sql")) == len([span for span in told["spans"] if "sql" in span["detail"]])
    assert all(span["ms"] >= 0 and span["start"] >= 0 for span in told["spans"])
    assert not any(span["failed"] for span in told["spans"])


def test_a_refused_transfer_is_rolled_back_and_the_spans_that_it_left_by_an_error_say_so(api, ada, rich, seen):
    told = seen(transfer(api, ada, rich, amount=1001))
    assert "ROLLBACK" in names(told) and "COMMIT" not in names(told)
    failed = {span["name"] for span in told["spans"] if span["failed"]}
    assert {"Ledger.move", "Ledger.transfer", "transaction", "TransactionRoutes.create_transfer"} <= failed
    assert not {"accounts.by_ids", "error_responses", "access_log", "Logins.identify"} & failed


def test_a_span_lies_within_the_span_around_it(api, ada, rich, seen):
    """To the microsecond to which a report rounds."""
    around = []
    for span in seen(transfer(api, ada, rich))["spans"]:
        del around[span["depth"] :]
        if around:
            assert span["start"] >= around[-1]["start"] - 0.002
            assert span["start"] + span["ms"] <= around[-1]["start"] + around[-1]["ms"] + 0.002
        around.append(span)


def test_the_first_read_of_a_product_is_a_miss_and_the_second_a_hit_without_a_statement(api, admin, seen):
    product = api.product(admin)
    first, second = (seen(api.get(f"/products/{product}")) for _ in range(2))
    assert (outcomes(first), len(of_layer(first, "sql"))) == ({"product": "miss"}, 1)
    assert (outcomes(second), of_layer(second, "sql")) == ({"product": "hit"}, [])
    assert len([name for name in names(first) if name == "snapshot"]) == 1


def test_an_absent_row_is_cached_too(api, seen):
    for expected in ("miss, absent", "hit, absent"):
        assert outcomes(seen(api.get(f"/products/{UNKNOWN_ID}"))) == {"product": expected}


def test_a_change_shows_the_invalidation_after_the_commit(api, admin, seen):
    product = api.product(admin)
    told = seen(api.patch(f"/products/{product}", admin, {"stock": 3}))
    [commit] = [span for span in told["spans"] if span["name"] == "COMMIT"]
    assert {span["depth"] for span in of_layer(told, "after commit")} == {commit["depth"]}
    order = [name for name in names(told) if name.startswith(("COMMIT", "Products.update", "invalidate"))]
    assert order == ["Products.update", "COMMIT", "Products.update", f"invalidate products:{product} products"]


def test_a_load_that_a_write_overtook_shows_as_refused_and_one_that_joined_another_as_coalesced(app):
    """Directly on the cache: over HTTP the moment between load and fill cannot be met."""
    inner = LruCache(app.database, 100, 60)
    cache, loading, loaded = TracedCache(inner), threading.Event(), threading.Event()
    seen = {}

    def slow(tx):
        loading.set()
        assert loaded.wait(60)
        return 1

    def overtaken(tx):
        inner.invalidate("tag")
        return 1

    def look(key, load):
        with recorded() as trace:
            cache.get_or_load(key, load, ("tag",))
        seen[threading.current_thread().name] = trace.spans[0].detail["outcome"]

    threads = [threading.Thread(target=look, args=("key", slow), name=name) for name in ("first", "second")]
    threads[0].start()
    assert loading.wait(60)
    threads[1].start()
    asleep(threads[1])
    loaded.set()
    for thread in threads:
        thread.join()
    look("other", overtaken)
    assert seen == {"first": "miss", "second": "coalesced", threading.current_thread().name: "refused"}


def test_the_limiter_tells_what_is_left_and_when_it_refuses(settings, tracing, seen, no_wait_for_the_disk):
    api = Api(traced_app(replace(settings, rate_limit_default=Limit(2, 600)), tracing))
    told = [seen(api.get("/products")) for _ in range(3)]
    assert [of_layer(each, "limiter")[0]["detail"]["outcome"] for each in told] == ["1 left", "0 left", "refused"]
    assert not of_layer(told[2], "route")
    api.app.close()


@pytest.mark.parametrize("key", VALID)
def test_every_request_is_answered_as_without_the_lab_and_its_trace_holds_no_secret(
    api, world, settings, clock, seen, key
):
    """Nor does the header. Passwords, tokens and what the database keeps of them are masked."""
    caller = allowed_caller(world, key)
    answer = send(api, world, key, caller, headers={"Idempotency-Key": "a-key-of-the-client"})
    told = seen(answer)
    with closing(sqlite3.connect(settings.database_path)) as database:
        stored = [text for (text,) in database.execute("SELECT password_hash FROM users WHERE active")]
        hashes = [text.hex() for (text,) in database.execute("SELECT token_hash FROM refresh_tokens")]
    text = json.dumps(told, ensure_ascii=False) + answer.headers["Server-Timing"]
    people = [world.people[name] for name in ("owner", "stranger", "admin")]
    tokens = [token for person in people for token in (person.access, person.refresh)]
    given = re.findall(r'"(?:access|refresh)Token":"([^"]+)', answer.text)
    secrets = [*stored, *hashes, *tokens, *given, PASSWORD, "another good one", SECRET, world.names["reset_token"]]
    assert [secret for secret in [*secrets, "a-key-of-the-client"] if secret in text] == []
    assert not re.search(r"""\"b['"\\]""", text)  # nor any bytes
    assert 200 <= answer.status_code < 300


def test_each_statement_has_its_whole_text_its_plan_and_its_masked_parameters(api, ada, seen):
    login = seen(api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}))
    statements = of_layer(login, "sql")
    [token] = [span["detail"] for span in statements if span["detail"]["sql"].startswith("INSERT INTO refresh_tokens")]
    assert token["parameters"]["token_hash"] == "•••" and token["changed"] == 1
    [found] = [span for span in statements if "users_2 (email_key=?)" in str(span["detail"]["plan"])][-1:]
    assert ada.email in found["detail"]["parameters"].values() and found["detail"]["rows"] == 1
    assert all("password" not in span["detail"]["parameters"] for span in statements)


def test_a_stored_answer_its_key_and_its_fingerprint_are_masked(api, ada, seen):
    told = seen(api.post("/accounts", ada, {"currency": "EUR"}, key="lunch-1"))
    [put] = [span for span in of_layer(told, "sql") if span["name"].startswith("INSERT INTO idempotency_keys")]
    shown = {name for name, value in put["detail"]["parameters"].items() if value != "•••"}
    assert shown == {"user", "now"}


def test_a_function_comes_with_its_source(api, ada, rich, seen):
    told = seen(transfer(api, ada, rich))
    [moved] = [span for span in told["spans"] if span["name"] == "Ledger.move"]
    assert moved["place"].startswith("backend/services/ledger.py:")
    assert told["sources"][moved["place"]].startswith("def move(")
    assert {span["place"] for span in told["spans"]} - {None} == set(told["sources"])
    assert not any("backend/lab/" in place for place in told["sources"])


def test_server_timing_adds_up_to_the_request(api, ada, rich, seen):
    answer = transfer(api, ada, rich)
    told = seen(answer)
    parts = dict(re.findall(r"([\w-]+);dur=([\d.-]+)", answer.headers["Server-Timing"]))
    assert {"middleware", "service", "sql", "database", "after-commit"} <= set(parts)
    assert sum(map(float, parts.values())) == pytest.approx(told["spans"][0]["ms"], abs=0.001 * len(parts))
    assert re.search(r'cache;dur=[\d.]+;desc="no cache"', answer.headers["Server-Timing"])


def test_concurrent_requests_do_not_mix(api, ada, rich, seen):
    answers = at_once([lambda: transfer(api, ada, rich)] * 8)
    for answer in answers:
        told = names(seen(answer))
        assert [told.count(name) for name in ("Ledger.transfer", "transaction", "COMMIT")] == [1, 1, 1]


def test_nothing_is_watched_after_the_request(api):
    """Also after one that ends in an error. The relay's threads are never watched."""
    api.get("/products")
    api.get("//nowhere")
    assert sys.getprofile() is None and current.get() is None


def test_an_application_without_the_lab_has_no_trace_of_it(settings, clock):
    app = make_app(settings, clock)
    assert {type(tool).__module__ for tool in (app.database, app.cache)} == {
        "backend.infrastructure.database",
        "backend.infrastructure.cache",
    }
    app.close()


@pytest.mark.parametrize(
    ("sent", "slow"), [("0.01", True), ("0", False), ("99", False), ("nan", False), ("-0.1", False)]
)
def test_a_load_can_be_made_slow_within_bounds_and_a_hit_cannot(api, admin, seen, sent, slow):
    product = api.product(admin)
    answers = [api.get(f"/products/{product}", admin, headers={"X-Lab-Slow-Load": sent}) for _ in range(2)]
    told = [[span for span in of_layer(seen(answer), "cache") if "slow" in span["name"]] for answer in answers]
    assert [len(spans) for spans in told] == [int(slow), 0]
    assert all(span["ms"] >= 10 for span in told[0])
