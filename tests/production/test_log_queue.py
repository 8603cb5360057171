"""The queue between the threads that log and the descriptor that takes the lines."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.infrastructure.logs import JsonFormatter, log_request, trace_id
from backend.production.log_queue import LogQueue
from tests.at_once import at_once
from tests.production.gunicorn_server import ROOT
from tests.waiting import wait_until

FIELDS = {
    "method": "GET", "path": "/api/v1/users/me", "route": "/api/v1/users/me", "status": 200, "ms": 1.25,
    "userId": "0199-ada", "client": "203.0.113.9", "bytes": 344,
}  # fmt: skip
AT_THE_EXIT = """
import logging
from backend.production import log_queue
log_queue.configure("INFO")
for number in range(3000):
    logging.getLogger("elsewhere").info("line %d", number)
"""


class Unwritable(str):
    """A line that cannot be encoded."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        raise MemoryError


class Bare(logging.Formatter):
    """Formats a record as its bare message."""

    def format(self, record: logging.LogRecord) -> str:
        return record.msg


def writing_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "log"}


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def queue(log_path: Path) -> Iterator[LogQueue]:
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    queue = LogQueue(descriptor)
    queue.setFormatter(Bare())
    yield queue
    queue.close()
    os.close(descriptor)


@pytest.fixture
def put(queue: LogQueue) -> Callable[[str], None]:
    """Logs a line."""
    return lambda line: queue.handle(logging.makeLogRecord({"msg": line}))


@pytest.fixture(params=[None, "4bf92f3577b34da6a3ce929d0e0e4736"], ids=["no trace", "trace"])
def trace(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lines are logged within this trace."""
    token = trace_id.set(request.param)
    yield
    trace_id.reset(token)


def test_an_error_in_the_writing_thread_drops_and_counts_only_its_lines(queue, put, log_path):
    for line in ("before", Unwritable("lost"), "after"):
        put(line)
        queue.flush(30)
    before, *rest = log_path.read_text().splitlines()
    assert (before, sorted(rest)[0]) == ("before", "after")
    (report,) = (json.loads(line) for line in rest if line != "after")
    assert report["droppedLines"] == 1


def test_a_record_that_cannot_be_formatted_counts_as_dropped_and_raises_nothing(queue, put, log_path):
    queue.setFormatter(logging.Formatter())
    queue.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    put("after")
    queue.flush(30)
    after, report = log_path.read_text().splitlines()
    assert (after, json.loads(report)["droppedLines"]) == ("after", 1)


def test_a_thread_that_cannot_be_started_loses_no_line_and_raises_nothing(queue, put, log_path, monkeypatch):
    def cannot(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        put("first")
    assert log_path.read_text() == ""
    put("second")
    queue.flush(30)
    assert log_path.read_text() == "first\nsecond\n"


def test_a_queue_that_was_closed_takes_lines_again(queue, put, log_path):
    """`logging.config` closes the handlers that it finds. The old writing thread ends."""
    before = writing_threads()
    put("first")
    queue.close()
    wait_until(lambda: writing_threads() <= before)
    put("second")
    queue.flush(30)
    assert log_path.read_text() == "first\nsecond\n"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"userId": None, "route": None},
        {"method": 'BR"EW\\', "path": '/"}\n{"\x00\x1b[31m\x85\xff\\\U0001f600', "ms": 0.0},
        {"client": "", "status": 503, "ms": 1234567.89, "bytes": 0},
    ],
)
def test_the_line_of_a_request_is_that_of_the_core(queue, log_path, caplog, trace, changes):
    """Exactly, except for the time."""
    fields = FIELDS | changes
    caplog.set_level(logging.INFO, "backend.access")
    queue.log_request(fields)
    queue.flush(30)
    log_request(fields)
    (record,) = caplog.records
    cores, queued = JsonFormatter().format(record), log_path.read_text("ascii").removesuffix("\n")
    assert queued.partition(",")[2] == cores.partition(",")[2]
    assert json.loads(queued) | {"time": ""} == json.loads(cores) | {"time": ""}


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 1), ("INFO", 1), ("WARNING", 0), ("ERROR", 0)])
def test_lines_of_requests_are_info(queue, log_path, caplog, level, lines):
    caplog.set_level(level, "backend.access")
    queue.log_request(FIELDS)
    queue.flush(30)
    assert len(log_path.read_text().splitlines()) == lines


def test_many_threads_that_log_lose_no_line_and_start_one_writing_thread(queue, log_path, caplog):
    caplog.set_level(logging.INFO, "backend.access")
    before = writing_threads()
    at_once([lambda: [queue.log_request(FIELDS | {"bytes": number}) for number in range(200)]] * 8)
    queue.flush(30)
    logged = [json.loads(line)["bytes"] for line in log_path.read_text().splitlines()]
    assert sorted(logged) == sorted([*range(200)] * 8)
    assert len(writing_threads() - before) == 1


def test_what_is_queued_at_the_exit_is_written(log_path):
    """To a file, for which no reader has to be quick."""
    with log_path.open("wb") as log:
        subprocess.run([sys.executable, "-c", AT_THE_EXIT], cwd=ROOT, stderr=log, timeout=60, check=True)
    lines = [json.loads(line) for line in log_path.read_text().splitlines()]
    assert [line["message"] for line in lines] == [f"line {number}" for number in range(3000)]
