"""Every request that has reached a worker is answered, whatever ends the worker or the connection."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.production.gunicorn_server import GET, LONG_STOP, Server, gunicorn
from tests.production.raw_client import Client, closed
from tests.production.steady_clients import SteadyClients
from tests.waiting import wait_until

WORKERS = {"WEB_CONCURRENCY": "2", "REQUEST_TIMEOUT_SECONDS": "10"}
LONG_KEPT = ("--keep-alive", "60")  # seconds
CLIENTS = 20  # open a connection for each request, and as many keep theirs


@contextlib.contextmanager
def nothing_lost(address: object) -> Iterator[list[SteadyClients]]:
    """Clients ask while the block runs. Afterwards: each request was answered, and each connection was accepted."""
    crowds = [SteadyClients(address, CLIENTS, keep) for keep in (False, True)]
    with crowds[0].running(), crowds[1].running():
        wait_until(lambda: all(crowd.answered > CLIENTS for crowd in crowds))
        yield crowds
    assert [(crowd.lost, crowd.refused) for crowd in crowds] == [([], 0)] * 2


def wait_for_answers(crowds: list[SteadyClients]) -> None:
    """Wait until each client has had several more answers."""
    before = [crowd.answered for crowd in crowds]
    wait_until(lambda: all(crowd.answered > old + 5 * CLIENTS for crowd, old in zip(crowds, before, strict=True)))


def test_three_reloads_lose_no_request(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log", **WORKERS) as server:
        server.wait_for_workers(2)
        with nothing_lost(server.address) as crowds:
            for _ in range(3):
                old = server.workers()
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_workers(2, others_than=old)
                wait_for_answers(crowds)


def test_workers_that_are_replaced_after_max_requests_lose_none(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log", "--max-requests", "400", **WORKERS) as server:
        server.wait_for_workers(2)
        with nothing_lost(server.address):
            wait_until(lambda: (tmp_path / "log").read_text().count("Booting worker") >= 6)


def test_servers_that_follow_each_other_on_one_listener_lose_no_request(tmp_path: Path) -> None:
    """A service manager holds the listener and passes it to each server; connections wait for the next one."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, contextlib.ExitStack() as stack:
        for number in range(3):
            log = tmp_path / str(number)
            with gunicorn(log, listener=listener, bind="fd://3", **WORKERS) as server:
                server.wait_for_workers(2)
                if number == 0:
                    crowds = stack.enter_context(nothing_lost(listener.getsockname()))
                wait_for_answers(crowds)
                if number == 2:
                    stack.close()
                server.process.terminate()
                assert server.process.wait(60) == 0
                assert "Traceback" not in log.read_text()


@contextlib.contextmanager
def kept(server: Server, count: int = 1) -> Iterator[list[Client]]:
    """Connections that have had one answer and are kept alive."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(count)]
        for client in clients:
            assert client.send(GET % b"/short").read_answer().headers["connection"] == "keep-alive"
        yield clients


@contextlib.contextmanager
def busy_loop(server: Server) -> Iterator[None]:
    """The loop runs a request for several times the stop's second, and does nothing else meanwhile."""
    with server.connect() as client:
        client.send(GET % b"/short/6")
        wait_until(lambda: is_running(server))
        yield
        assert client.read_answer().status == 200


def test_a_full_worker_closes_an_idle_connection_rather_than_one_with_a_request(tmp_path: Path) -> None:
    options = ("--worker-connections", "10", "--keep-alive", "600")
    with gunicorn(tmp_path / "log", *options) as server, kept(server, 9) as clients, contextlib.ExitStack() as stack:
        with server.stopped():
            newest = stack.enter_context(server.connect()).send(GET % b"/")
            clients[0].send(GET % b"/")
        assert [client.read_answer().status for client in (newest, clients[0])] == [200, 200]
        wait_until(lambda: bool(closed(clients)))
        assert len(closed(clients)) == 1 and clients[0] not in closed(clients)


def test_after_an_answer_late_in_the_stop_the_next_request_has_a_second(tmp_path: Path) -> None:
    """The request began before the stop, so its answer keeps the connection. (Here the second is one of five.)"""
    with gunicorn(tmp_path / "log", *LONG_STOP, *LONG_KEPT) as server, kept(server) as (client,):
        client.send(GET % b"/sleep/4.5")
        wait_until(lambda: is_running(server))
        server.process.terminate()
        assert client.read_answer().headers["connection"] == "keep-alive"
        time.sleep(1)  # the client's pause
        assert client.send(GET % b"/").read_answer().headers["connection"] == "close"
        assert server.process.wait(60) == 0


def is_running(server: Server) -> bool:
    """Whether a thread of the worker sleeps in the application."""
    (worker,) = server.workers()
    return "hrtimer_nanosleep" in {path.read_text() for path in Path(f"/proc/{worker}/task").glob("*/wchan")}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_for_a_while_after_sigterm_a_quiet_server_answers_and_reports_the_stop(tmp_path: Path, workers: str) -> None:
    """Then it ends. (A second; five seconds here.)"""
    with gunicorn(tmp_path / "log", *LONG_STOP, WEB_CONCURRENCY=workers) as server:
        server.wait_for_workers(int(workers))
        assert server.ask(GET % b"/readyz").body == b"0"
        told = time.monotonic()
        server.process.terminate()
        wait_until(lambda: server.ask(GET % b"/readyz").body == b"1")
        with pytest.raises(ConnectionRefusedError):
            while True:
                assert server.ask(GET % b"/readyz").body in (b"0", b"1")
                time.sleep(0.05)  # the client's pause
        assert time.monotonic() >= told + 5
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


def test_a_client_that_connects_before_the_listener_is_closed_is_answered(tmp_path: Path) -> None:
    """Connections wait in the listener's queue while the loop is busy until after its last second."""
    with gunicorn(tmp_path / "log") as server, contextlib.ExitStack() as stack:
        server.wait_for_workers(1)
        with busy_loop(server):
            server.process.terminate()
            clients = [stack.enter_context(server.connect()).send(GET % b"/") for _ in range(20)]
        assert [client.read_answer().status for client in clients] == [200] * 20
        assert server.process.wait(60) == 0


def test_a_worker_that_still_has_work_after_that_second_refuses_connections(tmp_path: Path) -> None:
    """Otherwise they would wait in the listener's queue and be reset when it is closed."""
    with gunicorn(tmp_path / "log", *LONG_KEPT) as server, kept(server) as (client,):
        client.send(GET % b"/sleep/6")
        wait_until(lambda: is_running(server))
        server.process.terminate()
        wait_until(lambda: refuses(server))
        assert server.process.poll() is None
        assert client.read_answer().status == 200
        assert server.process.wait(60) == 0


def refuses(server: Server) -> bool:
    try:
        server.connect().stream.close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("to_group", [False, True])
def test_ctrl_c_ends_the_server_at_once_and_without_a_traceback(tmp_path: Path, sent: int, to_group: bool) -> None:
    """A terminal sends the signal to the workers too."""
    with gunicorn(tmp_path / "log", **WORKERS) as server, kept(server):
        server.wait_for_workers(2)
        (os.killpg if to_group else os.kill)(server.process.pid, sent)
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()
