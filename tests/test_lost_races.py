"""A request whose transaction loses a race with another is run again: for every writing route, with one effect."""

import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import repeat

import pytest

from backend.errors import Contention
from backend.settings import Limit
from tests.conftest import PASSWORD
from tests.every_route import API, VALID, allowed_caller, send
from tests.meanwhile import before_the_commit, before_the_write

WRITES = sorted(key for key in VALID if not key.startswith("GET "))
RUNS = 4

pytestmark = pytest.mark.sqlite  # which loses no races by itself


def rows_of(path):
    """The number of rows of each table."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return Counter({name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables})


def lose(*_):
    raise Contention


@pytest.mark.parametrize("key", WRITES)
def test_a_request_that_loses_once_has_the_answer_and_the_effect_of_one_that_does_not(
    make_api, world, database_path, tmp_path, monkeypatch, key
):
    other = shutil.copy(database_path, tmp_path / "other.db")
    calm, contended = make_api(), make_api(database_path=other)
    for api in (calm, contended):
        api.app.relay.stop()  # so only the requests write
    expected = send(calm, world, key, allowed_caller(world, key))
    before_the_commit(monkeypatch, lose)
    answer = send(contended, world, key, allowed_caller(world, key))
    assert (answer.status_code, answer.headers.get("Location") is None) == (
        expected.status_code,
        expected.headers.get("Location") is None,
    )
    assert rows_of(other) == rows_of(database_path)


def test_a_request_that_always_loses_is_503_and_has_written_nothing(make_api, world, database_path, monkeypatch):
    api, before, runs = make_api(), rows_of(database_path), []
    api.app.relay.stop()
    for _ in repeat(None, RUNS):
        before_the_write(monkeypatch, lambda: (runs.append(1), lose()))
    answer = send(api, world, f"POST {API}/transfers", world.people["owner"])
    assert (answer.status_code, answer.headers["Retry-After"], len(runs)) == (503, "1", RUNS)
    assert rows_of(database_path) == before


@pytest.mark.parametrize("key", WRITES)
def test_limits_count_a_request_once_however_often_it_is_run(make_api, world, monkeypatch, key):
    """Also those counts that a handler makes itself, such as that of resets for an e-mail."""
    api = make_api(rate_limit_default=Limit(10, 36_000), rate_limit_auth=Limit(10, 36_000))
    api.app.relay.stop()
    before_the_commit(monkeypatch, lose)
    answer = send(api, world, key, allowed_caller(world, key))
    assert answer.status_code < 300, answer.text
    assert set(re.findall(r"r=(\d+)", answer.headers["RateLimit"])) <= {"9", "10"}


def test_a_deletion_that_loses_after_its_first_transaction_is_made_once(make_api, world, database_path, monkeypatch):
    """Run again as a whole, it would find that the version of its `If-Match` is no more."""
    monkeypatch.setattr("backend.services.users.ERASED", 1)
    api, admin = make_api(), world.people["admin"]
    api.app.relay.stop()
    api.post("/auth/login", json={"email": "owner@example.com", "password": PASSWORD}, headers={"User-Agent": "mine"})
    user = api.get("/users/me", world.people["owner"])
    before_the_commit(monkeypatch, lambda: before_the_commit(monkeypatch, lose))
    path = f"/users/{user.json['data']['id']}"
    answer = api.delete(path, admin, headers={"If-Match": user.headers["ETag"]})
    assert answer.status_code == 204, answer.text
    with closing(sqlite3.connect(database_path)) as connection:
        left = "SELECT 1 FROM sessions WHERE user_agent <> '' AND user_id = ?"
        assert connection.execute(left, [user.json["data"]["id"]]).fetchall() == []


@pytest.mark.parametrize("loses", [False, True])
def test_the_change_of_an_e_mail_counts_once(make_api, world, monkeypatch, loses):
    api, owner = make_api(rate_limit_auth=Limit(10, 36_000)), world.people["owner"]
    api.app.relay.stop()
    if loses:
        before_the_commit(monkeypatch, lose)
    change = {"email": "other@example.com", "currentPassword": PASSWORD}
    answer = api.patch("/users/me", owner, change)
    assert (answer.status_code, re.findall(r"r=(\d+)", answer.headers["RateLimit"])) == (200, ["9"])
