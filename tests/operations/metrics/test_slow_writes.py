"""The log names the holders of the write lock that made others wait."""

import json
import logging
import threading
import time

import pytest

from backend.infrastructure.logs import JsonFormatter
from backend.operations import slow_writes


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
    assert line["message"].startswith("held the write lock for 0.")
    assert line["message"].endswith("s: POST /api/v1/accounts")


def test_a_thread_beside_the_requests_is_named(app, lines):
    def write():
        with app.database.transaction():
            time.sleep(slow_writes.LONG_SECONDS)

    thread = threading.Thread(target=write, name="tidy up")
    thread.start()
    thread.join()
    (line,) = [line for line in lines() if "tidy up" in line["message"]]
    assert line["message"].endswith("s: thread tidy up")


def test_a_writer_that_only_waits_is_not_named(api, ada, lines):
    """It waits behind a transaction that holds the lock for long, and in the same group."""
    waiting = threading.Thread(target=lambda: api.post("/accounts", ada, {"currency": "EUR"}))
    with api.app.database.transaction():
        waiting.start()
        time.sleep(slow_writes.LONG_SECONDS)
    waiting.join()
    assert [line for line in lines() if "accounts" in line["message"]] == []
