"""The reader of the server's log may stop reading, or close the pipe: requests go on, and dropped lines are counted."""

import fcntl
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.production.log_queue import LogQueue
from tests.conftest import Api
from tests.forked import Forked
from tests.production.furnished_service import Service, furnished_service
from tests.waiting import wait_until

PIPE_BYTES = 4096  # the least there is: some 15 lines
REQUESTS = 200  # several times what pipe and queue take


class Reader:
    """Copies what comes through a pipe into a file. Can pause, and close the pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard, self.said = os.pipe()
        fcntl.fcntl(self.said, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._heard, False)
        self._reads, self._ended = True, False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def pause(self) -> None:
        self._reads = False

    def go_on(self) -> None:
        self._reads = True

    def go_away(self) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        pause = threading.Event()
        while not self._ended:
            try:
                data = os.read(self._heard, 65536) if self._reads else b""
            except BlockingIOError:
                data = b""
            if data:
                with self._path.open("ab") as file:
                    file.write(data)
            pause.wait(0 if data else 0.005)
        os.close(self._heard)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "log")
    yield reader
    reader.go_away()
    os.close(reader.said)


@pytest.fixture
def service(tmp_path: Path, api: Api, reader: Reader) -> Iterator[Service]:
    application = "tests.production.short_log_queue:application"
    with furnished_service(tmp_path / "log", api, application, reader.said) as service:
        yield service


def ask_often(service: Service) -> None:
    """Raises TimeoutError if a request waits for the log, which takes for ever."""
    assert {service.ask("GET", "/healthz").status for _ in range(REQUESTS)} == {200}


def replace_worker(service: Service) -> None:
    """Kill the worker and wait for the next one."""
    (worker,) = service.server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: service.server.workers() not in ([worker], []))
    service.ask("GET", "/healthz")  # waits until it is ready


def test_a_log_that_is_not_read_delays_no_request_and_later_counts_the_dropped_lines(
    service: Service, reader: Reader, tmp_path: Path
) -> None:
    """Each line is either there or counted."""

    def logged() -> list[dict[str, object]]:
        text = (tmp_path / "log").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n")].split("\n") if line.startswith("{")]

    def seen_and_dropped() -> tuple[int, int]:
        lines = logged()
        return sum(line.get("route") == "/healthz" for line in lines), sum(
            int(str(line.get("droppedLines", 0))) for line in lines
        )

    reader.pause()
    ask_often(service)
    assert service.transfer().status == 201
    reader.go_on()
    wait_until(lambda: sum(seen_and_dropped()) >= REQUESTS)
    _, dropped = seen_and_dropped()
    assert dropped > 0
    assert service.ask("GET", "/readyz").status == 200
    wait_until(lambda: any(line.get("route") == "/readyz" for line in logged()))
    assert sum(seen_and_dropped()) == REQUESTS + 1  # the transfer, which came last, was dropped too


def test_a_worker_that_dies_while_the_log_is_not_read_has_a_successor(service: Service, reader: Reader) -> None:
    """Gunicorn's master writes to the same log, and must not wait for its reader either."""
    reader.pause()
    ask_often(service)
    replace_worker(service)
    ask_often(service)


def test_a_closed_log_loses_its_lines_and_no_request(service: Service, reader: Reader) -> None:
    reader.go_away()
    ask_often(service)
    assert service.transfer().status == 201
    replace_worker(service)
    ask_often(service)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose
def test_lines_queued_at_a_fork_are_written_by_the_parent_alone() -> None:
    """gunicorn's master forks a worker while its own lines are in the queue."""
    heard, said = os.pipe()
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.write(said, b"x" * (PIPE_BYTES - 1) + b"\n")  # full
    queue = LogQueue(said)
    put(queue, "parent's first")
    queue.flush(0.1)  # times out: the queue's thread waits for the pipe
    put(queue, "parent's second")
    child = Forked(lambda: (put(queue, "child's"), queue.flush(100)))
    lines = b""
    while lines.count(b"\n") < 4:
        lines += os.read(heard, 65536)
    child.result()
    os.set_blocking(heard, False)
    with pytest.raises(BlockingIOError):
        os.read(heard, 1)
    assert sorted(lines.splitlines()[1:]) == [b"child's", b"parent's first", b"parent's second"]
    queue.close()
    os.close(heard)
    os.close(said)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_lines_of_several_workers_stay_whole_in_a_pipe_that_is_read_slowly() -> None:
    """A full pipe splits a write longer than PIPE_BUF, and another process's bytes come into its middle."""
    heard, said = os.pipe()
    children = [Forked(lambda name=name: log_often(LogQueue(said), name * 250)) for name in "abc"]
    os.close(said)
    text = b""
    while data := os.read(heard, PIPE_BYTES):
        text += data
    for child in children:
        child.result()
    os.close(heard)
    lines = text.decode().splitlines()
    assert {len(line) for line in lines} == {250}
    assert {len(set(line)) for line in lines} == {1}
    assert len(lines) == 6000


def put(queue: LogQueue, line: str) -> None:
    """Log a line of exactly these characters."""
    queue.setFormatter(logging.Formatter("%(message)s"))
    queue.handle(logging.makeLogRecord({"msg": line}))


def log_often(queue: LogQueue, line: str) -> None:
    for _ in range(2000):
        put(queue, line)
    queue.flush(100)
