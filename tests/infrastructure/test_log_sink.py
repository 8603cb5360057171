"""The thread that writes the log: an error costs the lines it had in hand, and no caller hears of it."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.infrastructure.logs import LogSink


class Unwritable(str):
    """A line that cannot be made into bytes."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        raise MemoryError


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def sink(log_path: Path) -> Iterator[LogSink]:
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sink = LogSink(descriptor)
    yield sink
    sink.close()
    os.close(descriptor)


def test_an_error_in_the_writing_thread_loses_its_lines_counts_them_and_no_more(sink, log_path):
    sink.put("before")
    sink.flush(30)
    sink.put(Unwritable("lost"))
    sink.flush(30)
    sink.put("after")
    sink.flush(30)
    before, *rest = log_path.read_text().splitlines()
    assert (before, sorted(rest)[0]) == ("before", "after")
    (report,) = (json.loads(line) for line in rest if line != "after")
    assert report["droppedLines"] == 1


def test_a_thread_that_cannot_be_started_loses_no_line_and_raises_nothing(sink, log_path, monkeypatch):
    def cannot(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        sink.put("first")
    assert log_path.read_text() == ""
    sink.put("second")
    sink.flush(30)
    assert log_path.read_text() == "first\nsecond\n"
