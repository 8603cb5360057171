"""The log names the holders of the write lock that made others wait."""

import json
import logging
import re
import threading
import time
from types import SimpleNamespace

import pytest

from backend.infrastructure import database as core
from backend.infrastructure.logs import JsonFormatter
from backend.operations import slow_writes
from backend.production import database as group_commit
from tests.at_once import asleep


@pytest.fixture
def lines(tmp_path):
    """The lines that are logged, as they are written, about long holders."""
    log, path = logging.getLogger("backend.operations.slow_writes"), tmp_path / "slow.log"
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    log.removeHandler(handler)
    handler.close()


def test_a_request_that_holds_it_for_long_is_named_with_its_route_and_id(api, ada, lines, monkeypatch):
    monkeypatch.setattr(slow_writes, "LONG_SECONDS", 0.0)  # every write is long
    answer = api.post("/accounts", ada, {"currency": "EUR"})
    (line,) = [line for line in lines() if line["requestId"] == answer.headers["X-Request-ID"]]
    assert line["level"] == "WARNING"
    assert re.fullmatch(r"held the write lock for \d+\.\d+ s: POST /api/v1/accounts", line["message"])


def test_a_thread_beside_the_requests_is_named(app, lines):
    def write():
        with app.database.transaction():
            time.sleep(slow_writes.LONG_SECONDS)

    thread = threading.Thread(target=write, name="tidy up")
    thread.start()
    thread.join()
    (line,) = [line for line in lines() if "tidy up" in line["message"]]
    assert line["message"].endswith("s: thread tidy up")


def test_a_writer_that_only_waits_is_not_named(api, ada, lines, monkeypatch):
    """It waits behind a transaction that holds the lock for long, and in the same group."""
    now = (
        time.monotonic()
    )  # stands still, so the waiting writer's own transaction takes no time on a busy machine, either
    for module in (core, group_commit):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(group_commit, "OPEN_SECONDS", 2 * slow_writes.LONG_SECONDS)
    waiting = threading.Thread(target=lambda: api.post("/accounts", ada, {"currency": "EUR"}))
    with api.app.database.transaction():
        waiting.start()
        asleep(waiting)
        now += slow_writes.LONG_SECONDS
    waiting.join()
    assert [line["message"] for line in lines()] == [
        f"held the write lock for 0.50 s: thread {threading.current_thread().name}"
    ]
