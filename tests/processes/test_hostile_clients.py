"""Whatever clients do, a well-behaved one is answered at once, and none of them keeps a connection for ever."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.gunicorn_server import GET, Client, Server, ends_of, gunicorn, many_descriptors, wait_until

PROMPT = 0.25  # seconds
DEADLINE = 1.0
SLACK = 0.75  # for a slow machine

OPENINGS = {
    "silent": b"",
    "one byte": b"G",
    "dripping": b"",
    "stalled head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "stalled body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
    "half a request behind a whole one": GET % b"/" + b"GET / HT",
    "not closing": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "not closing when refused": b"nonsense\r\n",
    "never reading": GET % b"/big",
}
BEGUN = {"one byte", "dripping", "stalled head", "stalled body", "half a request behind a whole one"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with gunicorn(log) as running:
        yield running
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Booting worker") == 1


def open_crowd(stack: contextlib.ExitStack, server: Server, count: int, opening: bytes) -> list[Client]:
    """So many connections, 50 from an address, each of which has sent `opening`."""
    receive_buffer = 4096 if opening == OPENINGS["never reading"] else 0
    return [
        stack.enter_context(server.connect(f"127.0.{count}.{1 + index // 50}", receive_buffer)).send(opening)
        for index in range(count)
    ]


@contextlib.contextmanager
def dripping(clients: list[Client]) -> Iterator[None]:
    """Each of them sends a byte of a head twenty times a second."""
    stop = threading.Event()
    sent: dict[Client, int] = {}

    def drip() -> None:
        head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 1000
        while not stop.wait(0.05):
            for client in list(clients):
                index = sent[client] = sent.get(client, -1) + 1
                with contextlib.suppress(OSError):
                    client.stream.send(head[index : index + 1])

    thread = threading.Thread(target=drip)
    thread.start()
    yield
    stop.set()
    thread.join()


def slowest_probe(server: Server, seconds: float) -> float:
    """The longest that a well-behaved client waits, one coming after the other for so many seconds."""
    end, slowest = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        slowest = max(slowest, server.probe())
    return slowest


@pytest.mark.parametrize("kind", OPENINGS)
def test_hostile_clients_delay_no_one_and_are_closed_by_the_deadline(server: Server, kind: str) -> None:
    """As many as there are threads, then 40, then 200 more; with a 408 where a request had begun."""
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:
        if kind == "dripping":
            stack.enter_context(dripping(clients))
        for count in (4, 40, 200):
            clients += open_crowd(stack, server, count, OPENINGS[kind])
            slowest = slowest_probe(server, 0.2)
            print(f"{kind}: {count}: a probe took {slowest * 1000:.0f} ms at most")
            assert slowest < PROMPT
        opened = time.monotonic() - 0.2
        if kind == "never reading":
            wait_until(lambda: all_hung_up(clients), DEADLINE + SLACK)
        ends = ends_of(clients, opened + DEADLINE + SLACK - time.monotonic())
    for end in ends:
        assert (b"HTTP/1.1 408 " in end.data and b'"REQUEST_TIMEOUT"' in end.data) == (kind in BEGUN)
        assert end.reset == (kind == "never reading")


def all_hung_up(clients: list[Client]) -> bool:
    """Whether the server has reset them all; found out without reading."""
    poll = select.poll()
    for client in clients:
        poll.register(client.stream, 0)
    return len(poll.poll(0)) == len(clients)


def test_a_client_that_takes_its_answer_byte_by_byte_is_cut_off_at_the_deadline(server: Server) -> None:
    """Each byte taken would begin a time-out of the socket anew; the deadline is for the whole answer."""
    began = time.monotonic()
    with server.connect(receive_buffer=4096) as client:
        client.send(GET % b"/big")
        while not all_hung_up([client]):
            assert client.stream.recv(1)
            time.sleep(0.01)
    assert DEADLINE - 0.1 < time.monotonic() - began < DEADLINE + SLACK


def test_a_slow_client_that_is_done_within_the_deadline_is_served(server: Server) -> None:
    with server.connect() as client:
        for piece in (b"POST / HT", b"TP/1.1\r\nHo", b"st: a\r\nContent-Length: 5\r", b"\n\r", b"\n12", b"345"):
            client.send(piece)
            time.sleep(0.1)  # the pace of this client
        assert client.read_answer().body == b"12345"


def test_clients_that_blast_data_at_a_server_that_refused_them_delay_no_one(server: Server) -> None:
    """What they send after their refusal is read and dropped, for two seconds at most."""
    stop = threading.Event()

    def blast() -> None:
        with server.connect() as client, contextlib.suppress(OSError):
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n")
            while not stop.is_set():
                client.send(b"x" * 100_000)

    threads = [threading.Thread(target=blast) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert slowest_probe(server, 0.3) < PROMPT
    stop.set()
    for thread in threads:
        thread.join()


def test_three_thousand_idle_connections_with_1024_descriptors_neither_kill_a_worker_nor_stop_service(
    tmp_path: Path,
) -> None:
    """The longest idle make room for the newest; a client that is busy keeps its connection."""
    log = tmp_path / "log"
    with many_descriptors(4000), gunicorn(log, descriptors=1024) as server, contextlib.ExitStack() as stack:
        workers = server.workers()
        for index in range(3000):
            stack.enter_context(server.connect(f"127.0.2.{1 + index // 75}"))
            if index % 100 == 0:
                assert server.probe() < PROMPT
        assert slowest_probe(server, 0.2) < PROMPT
        assert server.workers() == workers
    assert log.read_text().count("Booting worker") == 1


def test_running_out_of_descriptors_does_not_kill_the_worker(tmp_path: Path) -> None:
    """Should the limit on connections be set too high, accepting pauses, and the idle make room."""
    log = tmp_path / "log"
    options = ("--worker-connections", "1000")
    with gunicorn(log, *options, descriptors=64) as server, contextlib.ExitStack() as stack:
        workers = server.workers()
        for _ in range(90):
            stack.enter_context(server.connect())
        wait_until(lambda: "cannot accept a connection" in log.read_text())
        assert server.workers() == workers


def test_an_address_holds_a_hundred_connections_over_all_workers(tmp_path: Path) -> None:
    """Others are not touched, and a worker that is killed takes what it held out of the count."""
    log = tmp_path / "log"
    settings = {"WEB_CONCURRENCY": "2", "REQUEST_TIMEOUT_SECONDS": "30"}
    with gunicorn(log, **settings) as server, contextlib.ExitStack() as stack:
        wait_until(lambda: log.read_text().count("Booting worker") == 2)
        for _ in range(2):
            clients = [stack.enter_context(server.connect("127.0.0.7")).send(b"G") for _ in range(120)]
            # Two workers that are asked for the last place at the same moment may both refuse.
            wait_until(lambda: 98 <= 120 - len(closed(clients)) <= 100)
            assert server.probe() < PROMPT
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
            wait_until(lambda: len(closed(clients)) == 120)
            wait_until(lambda: log.read_text().count("Booting worker") == 4)


def test_a_trusted_proxy_holds_as_many_connections_as_it_likes(tmp_path: Path) -> None:
    settings = {"TRUSTED_PROXIES": "127.0.0.0/8", "REQUEST_TIMEOUT_SECONDS": "30"}
    with gunicorn(tmp_path / "log", **settings) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()).send(GET % b"/") for _ in range(150)]
        assert all(client.read_answer().status == 200 for client in clients)
        assert not closed(clients)


def closed(clients: list[Client]) -> list[Client]:
    """Those whose connection the server has closed."""

    def is_closed(client: Client) -> bool:
        client.stream.setblocking(False)
        try:
            return not client.stream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            client.stream.settimeout(10)

    return [client for client in clients if is_closed(client)]
