"""Whatever clients do, a well-behaved one is answered at once, and none of them keeps a connection for ever."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.gunicorn_server import GET, Client, Server, ends_of, gunicorn, many_descriptors, wait_until

PROMPT = 0.25  # seconds
DEADLINE = 1.0
SLACK = 1.0  # for a slow machine

OPENINGS = {
    "silent": b"",
    "one byte": b"G",
    "dripping": b"",
    "stalled head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "stalled body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
    "half behind a whole": GET % b"/" + b"GET / HT",
    "not closing": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "not closing when refused": b"nonsense\r\n",
    "never reading": GET % b"/big",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with gunicorn(log) as running:
        yield running
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Booting worker") == 1


@contextlib.contextmanager
def crowd(server: Server, count: int, opening: bytes, receive_buffer: int = 0) -> Iterator[list[Client]]:
    """So many connections, 50 from an address, each of which has sent `opening`."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(server.connect(f"127.0.1.{1 + index // 50}", receive_buffer)).send(opening)
            for index in range(count)
        ]


@contextlib.contextmanager
def dripping(clients: list[Client]) -> Iterator[None]:
    """Each of them sends another byte of a head twenty times a second."""
    stop = threading.Event()

    def drip() -> None:
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 1000:
            if stop.wait(0.05):
                return
            for client in clients:
                with contextlib.suppress(OSError):
                    client.stream.send(bytes([byte]))

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


@pytest.mark.parametrize("count", [4, 40, 200])
@pytest.mark.parametrize("kind", OPENINGS)
def test_hostile_clients_delay_no_one_and_are_all_closed_by_the_deadline(
    server: Server, kind: str, count: int
) -> None:
    """As many as the threads, ten times that, and fifty times that; with 408 where a request had begun."""
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(crowd(server, count, OPENINGS[kind], 4096 if kind == "never reading" else 0))
        if kind == "dripping":
            stack.enter_context(dripping(clients))
        began = time.monotonic()
        assert slowest_probe(server, DEADLINE / 2) < PROMPT
        if kind == "never reading":
            time.sleep(DEADLINE + 0.3)  # that is what it does: reading is how it would notice anything
        ends = ends_of(clients, DEADLINE + SLACK)
    print(f"\n{kind}: {count}: closed after {max(end.time for end in ends) - began:.2f} s")
    if kind in ("one byte", "dripping", "stalled head", "stalled body", "half behind a whole"):
        assert all(b"HTTP/1.1 408 " in end.data and b'"REQUEST_TIMEOUT"' in end.data for end in ends)
    if kind == "never reading":
        assert all(end.reset and len(end.data) < 5_000_000 for end in ends)
