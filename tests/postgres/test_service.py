"""The service on PostgreSQL under a real gunicorn of two workers."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median

import psycopg
import pytest

from backend.postgres.migrations import migrate
from tests.conftest import PASSWORD, SECRET, Api
from tests.operations.metrics.scraping import scrape
from tests.postgres_server import BINARIES, Server
from tests.production.load import Load
from tests.production.oracle import ID_OF_EFFECT, result_of
from tests.production.real_service import Caller, call, service
from tests.production.test_server_start import CONFIGURATION, start
from tests.test_readme import take_tour
from tests.waiting import wait_until
from tests.wirings import make_app

APPLICATION = "backend.postgres.wiring:create_app()"
SEED = 20_261_126
OLD_ROWS = """INSERT INTO audit SELECT to_char(n, 'FM000000000'), NULL, 'thing.done', 'thing', '1', '-', 1000000000000
    FROM generate_series(1, 250) AS n"""


@pytest.fixture
def folder(tmp_path):
    """Where the server runs."""
    (folder := tmp_path / "here").mkdir()
    return folder


@pytest.fixture
def serve(tmp_path, folder):
    """`serve(url)`: two workers on that database."""

    def serve(url, **settings):
        where = {"application": APPLICATION, "folder": folder, "DATABASE_URL": url}
        return service(tmp_path / "log", tmp_path / "app.db", **where, **settings)

    return serve


@pytest.fixture
def own_server():
    """A server for this test alone, so that it may crash."""
    if not BINARIES:
        pytest.skip("this machine has no pg_ctl")
    server = Server(BINARIES)
    with server.running():
        migrate(server.url)
        yield server


def furnished(api):
    """A user and two of the user's accounts, the first with money."""
    root, ada = api.admin(), api.sign_up("Ada")
    accounts = (api.account(ada, balance=10**9, admin=root), api.account(ada))
    api.app.close()
    return ada, accounts


def wrong_in(url, *answered):
    """What the oracle finds."""
    with psycopg.connect(url) as connection:
        effect = "(data::json ->> 'id')"
        return result_of(lambda sql: connection.execute(sql.replace(ID_OF_EFFECT, effect)).fetchall(), *answered)


def ready(server):
    return call(server, "GET", "//readyz").status


def test_the_tour_shows_the_stated_results_and_can_be_repeated(serve, url, tmp_path):
    with serve(url, RATE_LIMIT_DEFAULT="300/60", RATE_LIMIT_AUTH="10/60") as server:
        for _ in range(2):
            take_tour(tmp_path / "app.db", server.address[1], DATABASE_URL=url, JWT_SECRETS=SECRET)


def test_operations_work_and_measure_nothing_of_sqlite(serve, url, outsider):
    outsider.execute(OLD_ROWS)
    with serve(url, AUDIT_KEEP_DAYS="30") as server:
        wait_until(lambda: "deleted 250 audit" in server.log.read_text())
        assert call(server, "POST", "/users", json_={"email": "no address"}).status == 422
        wait_until(lambda: scrape(server).value("database_up") == 1)
        answer = scrape(server)
        assert answer.value("outbox_deliveries", state="dead") == 0
        wait_until(lambda: scrape(server).value("http_requests_total", method="POST", route="/api/v1/users") == 1)
        log = server.log.read_text()
    assert "sqlite" not in answer.text + log.lower().replace(f"sqlite:///{server.log.parent}", "")
    assert ", PostgreSQL, " in log


def test_a_killed_worker_under_load_costs_no_answered_transfer(serve, api, settings):
    ada, accounts = furnished(api)
    choose = random.Random(SEED)
    with serve(settings.postgres_url) as server:
        load = Load(server, ada, accounts)
        for _ in range(4):
            killed, answered = choose.choice(server.workers()), len(load.acknowledged)
            os.kill(killed, signal.SIGKILL)
            server.wait_for_workers(2, others_than=[killed])
            wait_until(lambda answered=answered: len(load.acknowledged) > answered + 20)
        load.over = True
        load.join()
    assert wrong_in(settings.postgres_url, load.acknowledged, load.refused) == []


def test_threads_that_wait_for_bcrypt_hold_no_connection(serve, api, settings, outsider):
    ada, _ = furnished(api)
    logins = 40
    with serve(settings.postgres_url, BCRYPT_ROUNDS="11", RATE_LIMIT_AUTH="off") as server:
        over = threading.Event()

        def log_in():
            body, statuses = {"email": ada.email, "password": PASSWORD}, set()
            while not over.is_set():
                with Caller(server.address, seconds=120) as caller:
                    statuses.add(caller.call("POST", "/auth/login", None, body).status)
            return statuses

        before, seen = connections(outsider), []
        with ThreadPoolExecutor(logins) as pool:
            answers = [pool.submit(log_in) for _ in range(logins)]
            while len(seen) < 200 and not any(answer.done() for answer in answers):
                seen.append(connections(outsider))
                time.sleep(0.01)
            over.set()
    assert set().union(*(answer.result() for answer in answers)) <= {200, 503}  # a login waits for ten seconds at most
    assert median(seen) < before + logins / 2


def connections(outsider):
    """How many the service holds."""
    named = """SELECT count(*) FROM pg_stat_activity
               WHERE application_name = 'reference-backend' AND datname = current_database()"""
    return outsider.execute(named).fetchone()[0]


def test_a_crash_of_the_database_under_load_loses_nothing_that_was_answered(serve, own_server, settings, clock):
    """Meanwhile the service is not ready, and answers 503. It needs no restart."""
    at_own = replace(settings, postgres_url=own_server.url)
    ada, accounts = furnished(Api(make_app(at_own, clock, wiring="postgres")))
    with serve(own_server.url) as server:
        load = Load(server, ada, accounts)
        for _ in range(2):
            own_server.crash()
            wait_until(lambda: ready(server) == 503)
            own_server.start()
            wait_until(lambda: ready(server) == 200)
            answered = len(load.acknowledged)
            wait_until(lambda answered=answered: len(load.acknowledged) > answered + 20)
        load.over = True
        load.join()
        assert "Traceback" not in server.log.read_text()
    assert wrong_in(own_server.url, load.acknowledged) == []


def test_on_a_replica_reads_are_answered_and_writes_and_readiness_are_503(serve, api, settings):
    ada, (account, other) = furnished(api)
    name = psycopg.conninfo.conninfo_to_dict(settings.postgres_url)["dbname"]
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            with serve(settings.postgres_url) as server:
                assert call(server, "GET", f"/accounts/{account}", ada).status == 200
                refused = call(
                    server, "POST", "/transfers", ada, {"fromAccountId": account, "toAccountId": other, "amount": 1}
                )
                assert (refused.status, "retry-after" in refused.headers) == (503, True)
                assert "database" in call(server, "GET", "//readyz").body["error"]["details"]
                assert "Traceback" not in server.log.read_text()
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_with_jwt_secrets_it_needs_no_file(serve, url, folder):
    """Also where the database of SQLite would be."""
    with serve(url) as server:
        wait_until(lambda: ready(server) == 200)  # a check that takes 0.8 s is late
    assert list(folder.iterdir()) == []


def test_a_server_that_cannot_be_used_stops_the_start_with_one_line(fresh_url):
    assert "older than the code" in start(*CONFIGURATION, DATABASE_URL=fresh_url)
    said = start(*CONFIGURATION, DATABASE_URL="postgresql://ada:hunter2@127.0.0.1:1/app")
    assert "DATABASE_URL: the PostgreSQL database cannot be used" in said
    assert "hunter2" not in said


def test_a_start_warns_of_a_secret_that_other_hosts_do_not_have(serve, url):
    with serve(url, JWT_SECRETS="") as server:
        assert server.log.read_text().count("JWT_SECRETS is not set") == 1
