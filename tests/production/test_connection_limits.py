"""A worker serves however many connections there are, and no address holds more than its share."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.production.gunicorn_server import GET, gunicorn, open_crowd
from tests.production.raw_client import Client, closed
from tests.waiting import wait_until


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Raise the limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_three_thousand_idle_connections_with_1024_descriptors_neither_kill_a_worker_nor_stop_service(
    tmp_path: Path,
) -> None:
    """The longest idle make room for the newest; a client that is busy keeps its connection."""
    log, began = tmp_path / "log", time.monotonic()
    with (
        many_descriptors(4000),
        gunicorn(log, descriptors=1024) as server,
        contextlib.ExitStack() as stack,
    ):
        workers = server.workers()
        for index in range(3000):
            stack.enter_context(server.connect(f"127.0.2.{1 + index // 75}"))
            if index % 100 == 0:
                server.probe()
        server.probe()
        assert server.workers() == workers
    assert log.read_text().count("Booting worker") == 1
    minutes = 1 + (time.monotonic() - began) // 60
    assert 1 <= log.read_text().count("the longest idle make room") <= minutes


def test_a_worker_that_is_full_of_slow_clients_serves_the_next_one(tmp_path: Path) -> None:
    """The connection that has waited longest for its client is closed to make room."""
    log = tmp_path / "log"
    with gunicorn(log, descriptors=128) as server, contextlib.ExitStack() as stack:
        clients = open_crowd(stack, server, 100, b"G")
        server.probe()
        wait_until(lambda: len(closed(clients)) in range(37, 45))
        assert not closed(clients[-50:])


def test_running_out_of_descriptors_does_not_kill_the_worker(tmp_path: Path) -> None:
    """With too high a limit on connections, the worker pauses accepting, and idle connections make room."""
    log = tmp_path / "log"
    options = ("--worker-connections", "1000")
    with gunicorn(log, *options, descriptors=64) as server, contextlib.ExitStack() as stack:
        workers = server.workers()
        for _ in range(90):
            stack.enter_context(server.connect())
        wait_until(lambda: "cannot accept a connection" in log.read_text())
        assert server.workers() == workers


def test_an_address_holds_a_hundred_connections_over_all_workers(tmp_path: Path) -> None:
    """Other addresses are not affected, and the connections of a killed worker no longer count."""
    log = tmp_path / "log"
    with gunicorn(log, WEB_CONCURRENCY="2") as server, contextlib.ExitStack() as stack:

        def fill() -> list[Client]:
            clients = [stack.enter_context(server.connect("127.0.0.7")).send(b"G") for _ in range(120)]
            # Two workers that are asked for the last place at the same moment may both refuse.
            wait_until(lambda: 98 <= 120 - len(closed(clients)) <= 100)
            server.probe()
            return clients

        clients = fill()
        wait_until(lambda: log.read_text().count("Booting worker") == 2)
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(closed(clients)) == 120)
        wait_until(lambda: log.read_text().count("Booting worker") == 4)
        fill()


def test_connections_beyond_the_hundred_are_one_warning_that_names_the_setting(tmp_path: Path) -> None:
    """A proxy that is not in TRUSTED_PROXIES looks like one client with too many connections."""
    log = tmp_path / "log"
    with gunicorn(log) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect("127.0.0.7")) for _ in range(130)]
        wait_until(lambda: len(closed(clients)) == 30)
        wait_until(lambda: "TRUSTED_PROXIES" in log.read_text())
        lines = [line for line in log.read_text().splitlines() if "TRUSTED_PROXIES" in line]
        assert len(lines) == 1
        assert '"WARNING"' in lines[0] and "127.0.0.7" in lines[0]


def test_a_trusted_proxy_holds_as_many_connections_as_it_likes(tmp_path: Path) -> None:
    log, options = tmp_path / "log", ("--keep-alive", "600")
    with gunicorn(log, *options, TRUSTED_PROXIES="127.0.0.0/8") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()).send(GET % b"/") for _ in range(150)]
        assert all(client.read_answer().status == 200 for client in clients)
        assert not closed(clients)


def test_clients_that_do_not_close_after_their_last_answer_are_closed(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log") as server, contextlib.ExitStack() as stack:
        handles = Path(f"/proc/{server.workers()[0]}/fd")
        server.probe()
        before = len(list(handles.iterdir()))  # the probe's may be among them
        clients = open_crowd(stack, server, 20, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert [client.read_answer().status for client in clients] == [200] * 20
        wait_until(lambda: len(list(handles.iterdir())) <= before)
