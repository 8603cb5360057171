"""What `/metrics` counts and samples, in one worker."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from backend.errors import Unauthorized
from backend.infrastructure.passwords import Passwords
from backend.operations.metrics_samples import Samples
from backend.production.database import GroupCommitDatabase
from backend.repositories import outbox
from backend.settings import Limit
from tests.at_once import asleep
from tests.cli.running import environment
from tests.conftest import UNKNOWN_ID
from tests.held_bcrypt import HeldBcrypt
from tests.operations.metrics.scraping import Scrape
from tests.waiting import wait_until, write_lock_held

ROOT = Path(__file__).parents[3]
WITHOUT_THE_PACKAGE = """
import sys
sys.modules["prometheus_client"] = None
sys.argv = ["app.py", "check"]
import app
app.main()
"""


def test_it_is_text_for_prometheus_that_no_cache_keeps(scrape):
    answer = scrape()
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert not {name for name in answer.headers if name.startswith("ratelimit")}


def test_it_is_documented(api):
    operation = api.get("//openapi.json").json["paths"]["/metrics"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["text/plain"]
    assert "429" not in operation["responses"]


def test_it_is_not_limited(make_api):
    api = make_api(rate_limit_default=Limit(1, 60))
    assert [api.get("//metrics").status_code for _ in range(5)] == [200] * 5


def test_requests_count_by_the_templates_of_their_routes(api, scrape, ada):
    for _ in range(3):
        api.get(f"/users/{ada.id}", ada)
    api.get(f"/users/{UNKNOWN_ID}", ada)
    answer = scrape()
    requests = {"method": "GET", "route": "/api/v1/users/{id}"}
    assert answer.value("http_requests_total", **requests, status="200") == 3
    assert answer.value("http_requests_total", **requests, status="403") == 1
    assert answer.value("http_request_duration_seconds_count", **requests) == 4
    assert answer.value("http_request_duration_seconds_bucket", **requests, le="+Inf") == 4
    assert answer.value("http_request_duration_seconds_sum", **requests) > 0
    assert ada.id not in answer.text


def test_an_unexpected_error_counts_as_500(api, scrape, monkeypatch):
    def fail(*_):
        raise LookupError("on purpose")

    monkeypatch.setattr("backend.services.products.Products.page", fail)
    assert api.get("/products").status_code == 500
    assert scrape().value("http_requests_total", route="/api/v1/products", status="500") == 1


def test_clients_cannot_add_series(api, scrape):
    """Whatever the path and the method: only one series more for each status."""
    api.get("//nothing")
    api("PURGE", "//nothing")
    api("PURGE", "//healthz")
    before = scrape().series()
    hostile = ['"', "\n", "\\", "}", "{id}", "é", "%0A", "none", "other"]
    for n in range(2_000):
        method = f"M{n}" if n % 2 else "GET"
        api(method, f"//{hostile[n % len(hostile)]}{n}")
    answer = scrape()
    assert answer.series() - before == {
        line
        for line in answer.series()
        if 'route="/metrics"' in line  # the scrape before
    }
    assert answer.value("http_requests_total", method="other", route="none") == 1002


def test_requests_in_flight_are_those_not_answered_yet(make_api, scrape_of, database_path):
    api = make_api(busy_timeout_seconds=60)
    ada, scrape = api.sign_up("Ada"), scrape_of(api)
    waiting = threading.Thread(target=lambda: api.post("/accounts", ada, {"currency": "EUR"}))
    with write_lock_held(database_path):
        waiting.start()
        wait_until(lambda: scrape().value("http_requests_in_flight") == 2)  # with the scrape's own
    waiting.join()
    assert scrape().value("http_requests_in_flight") == 1


def test_the_cache_counts_its_lookups(api, scrape, admin):
    product = api.product(admin)
    before = scrape()
    for _ in range(3):
        api.get(f"/products/{product}")
    after = scrape()

    def more(**labels):
        return after.value("cache_lookups_total", **labels) - before.value("cache_lookups_total", **labels)

    assert (more(result="miss"), more(result="hit")) == (1, 2)


def test_refusals_of_tokens_count_by_reason(api, scrape, clock, ada):
    ended = api.sign_up("Ended")
    api.delete("/auth/sessions", ended)
    api.get("/users/me", ended)
    api.get("/users/me")
    api.get("/users/me", replace(ada, access="no token"))
    api.post("/auth/refresh", json={"refreshToken": "no token"})
    api.post("/auth/login", json={"email": ada.email, "password": "a wrong one"})
    clock.advance(1000)
    api.get("/users/me", ada)
    answer = scrape()
    counted = {reason: answer.value("auth_refusals_total", reason=reason) for reason in Unauthorized.REASONS}
    assert counted == {"missing": 1, "invalid": 2, "expired": 1, "revoked": 1, "credentials": 1}


def test_refusals_by_the_limits_count_by_policy(make_api, clock):
    api = make_api(rate_limit_default=Limit(8, 3600), rate_limit_auth=Limit(1, 3600))
    for _ in range(3):
        api.post("/auth/login", json={"email": "nobody@example.com", "password": "a wrong one"})
    for _ in range(8):
        api.get("/products")
    text = api.get("//metrics").text
    assert 'rate_limit_refusals_total{policy="auth"} 2.0' in text
    assert 'rate_limit_refusals_total{policy="default"} 3.0' in text


def test_what_no_request_has_met_yet_is_0_and_not_missing(scrape):
    """Otherwise the first refusal would be no increase."""
    answer = scrape()
    assert answer.labels("reason") == set(Unauthorized.REASONS)
    assert answer.labels("policy") == {"default", "auth"}


def test_the_servers_own_refusals_count(scrape, refused):
    refused[431] += 2
    assert scrape().value("http_server_refusals_total", status="431") == 2
    refused[431] += 1
    assert scrape().value("http_server_refusals_total", status="431") == 3


def test_each_write_counts_the_time_that_it_waited_and_held_the_lock(api, scrape, ada):
    api.app.relay.stop()  # which would write, too, and be between its two counts
    before = scrape()
    writing = threading.Thread(target=lambda: api.post("/accounts", ada, {"currency": "EUR"}))
    with api.app.database.transaction():
        writing.start()
        asleep(writing, seconds=0.3)
    writing.join()
    after = scrape()

    def more(name):
        return after.value(name) - before.value(name)

    assert more("write_lock_wait_seconds_count") >= 1
    assert more("write_lock_wait_seconds_count") == more("write_lock_hold_seconds_count")
    assert more("write_lock_wait_seconds_sum") >= 0.3
    assert more("write_lock_hold_seconds_sum") >= 0.3


def test_password_checks_that_run_and_that_wait_are_shown(api, scrape, monkeypatch):
    held = HeldBcrypt(seconds=30)
    monkeypatch.setattr(bcrypt, "checkpw", held)
    body = {"email": "nobody@example.com", "password": "a wrong one"}
    threads = [threading.Thread(target=lambda: api.post("/auth/login", json=body)) for _ in range(8)]
    for thread in threads:
        thread.start()

    def shown():
        answer = scrape()
        return answer.value("bcrypt_running") + answer.value("bcrypt_waiting")

    wait_until(lambda: shown() == 8)
    assert scrape().value("bcrypt_running") >= 1
    held.may_end.set()
    for thread in threads:
        thread.join()
    assert shown() == 0


def test_the_outbox_is_shown_by_state(database_path):
    """Due: since 90 s. Waiting: behind an older event, and for a retry. No relay runs here."""
    database = GroupCommitDatabase(database_path)
    now = database.now()
    states = [("x", 0), ("x", -1), ("x", now + 86_400_000), ("y", None), ("y", None)]
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        for number, (subscriber, due_at) in enumerate(states):
            other.execute(
                "INSERT INTO outbox (id, name, resource_type, resource_id, request_id, payload, created_at)"
                " VALUES (?, 'x.made', 'x', '', '', '{}', ?)",
                (f"event {number}", now - 90_000),
            )
            other.execute(
                "INSERT INTO deliveries (seq, subscriber, tries, due_at) VALUES (last_insert_rowid(), ?, 0, ?)",
                (subscriber, due_at),
            )
    samples = CollectorRegistry()
    samples.register(Samples(database_path, database, Passwords(4)))
    answer = Scrape(200, {}, generate_latest(samples).decode())
    with database.snapshot() as tx:
        assert outbox.backlog(tx, most=1).dead == 1  # a scrape counts no further
    database.close()
    shown = {state: answer.value("outbox_deliveries", state=state) for state in ("due", "waiting", "dead")}
    assert shown == {"due": 1, "waiting": 2, "dead": 2}
    assert 90 <= answer.value("outbox_oldest_due_seconds") < 900


def test_the_size_of_the_wal_and_the_build_are_shown(scrape, ada, database_path):
    wal = database_path.with_name("app.db-wal")
    wait_until(lambda: scrape().value("sqlite_wal_bytes") == wal.stat().st_size > 0)  # the relay writes, too
    assert scrape().value("build_info", sqlite=sqlite3.sqlite_version, python=sys.version.split()[0]) == 1


def test_without_the_database_only_its_own_metrics_are_missing(api, scrape, ada, database_path):
    assert scrape().value("database_up") == 1
    database_path.rename(database_path.with_name("elsewhere.db"))
    answer = scrape()
    assert (answer.status, answer.value("database_up")) == (200, 0)
    assert "outbox_deliveries" not in answer.text
    assert answer.value("http_requests_total", route="/api/v1/auth/login", status="200") == 1


def test_a_scrape_does_not_wait_for_the_write_lock(scrape, database_path):
    with write_lock_held(database_path):
        assert scrape().value("database_up") == 1


def test_scrapes_within_a_second_cost_one(api, standing_clock):
    standing_clock.advance(10)
    first = api.get("//metrics").text
    api.get("/products")
    assert api.get("//metrics").text == first
    standing_clock.advance(2)
    assert api.get("//metrics").text != first


def test_without_the_package_it_is_404_and_the_rest_works(monkeypatch, make_api):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    api = make_api()
    assert [api.get(path).status_code for path in ("//metrics", "//healthz")] == [404, 200]
    assert "/metrics" not in api.get("//openapi.json").json["paths"]


def test_check_says_how_to_get_the_package(database_path):
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(database_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install '.[metrics]'" in done.stdout


def test_promtool_finds_nothing_to_improve(api, scrape, ada):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("there is no promtool: apt-get install prometheus")
    api.get("/products", ada)
    command = [promtool, "check", "metrics"]
    done = subprocess.run(command, input=scrape().text, capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if "_created" not in line] == []  # which several workers do not have
