"""A well-behaved client is answered at once whatever others do, and every connection ends by a deadline."""

import contextlib
import select
import threading
import time
from collections.abc import Iterator

import pytest

from tests.production.gunicorn_server import GET, PROMPT, Server, gunicorn, open_crowd, slowest_probe
from tests.production.raw_client import Client, ends_of
from tests.waiting import wait_until

DEADLINE = 1.0
SLACK = 0.75  # for a slow machine

OPENINGS = {
    "silent": b"",
    "one byte": b"G",
    "an empty line": b"\r\n",
    "dripping": b"",
    "stalled head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "stalled body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
    "half a request behind a whole one": GET % b"/" + b"GET / HT",
    "not closing": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "not closing when refused": b"nonsense\r\n",
    "never reading": GET % b"/big",
}
BEGUN = {"one byte", "an empty line", "dripping", "stalled head", "stalled body", "half a request behind a whole one"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with gunicorn(log) as running:
        yield running
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Booting worker") == 1


@contextlib.contextmanager
def dripping(clients: list[Client]) -> Iterator[None]:
    """Each client sends a byte of a head twenty times a second."""
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


@pytest.mark.parametrize("kind", OPENINGS)
def test_hostile_clients_delay_no_other_and_are_closed_by_the_deadline(server: Server, kind: str) -> None:
    """As many clients as threads, then 40 more, then 200 more. Those that have begun a request get a 408."""
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:
        if kind == "dripping":
            stack.enter_context(dripping(clients))
        for count in (4, 40, 200):
            clients += open_crowd(stack, server, count, OPENINGS[kind], 4096 if kind == "never reading" else 0)
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
    """Whether the server has reset all connections. Nothing is read from them."""
    poll = select.poll()
    for client in clients:
        poll.register(client.stream, 0)
    return len(poll.poll(0)) == len(clients)


def test_a_client_that_takes_its_answer_byte_by_byte_is_cut_off_at_the_deadline(server: Server) -> None:
    """The deadline is for the whole answer; a socket time-out would start again with each byte."""
    began = time.monotonic()
    with server.connect(receive_buffer=4096) as client:
        client.send(GET % b"/big")
        while not all_hung_up([client]):
            assert client.stream.recv(1)
            time.sleep(0.01)
    assert DEADLINE - 0.1 < time.monotonic() - began < DEADLINE + SLACK


def test_a_lone_client_is_refused_in_time(server: Server) -> None:
    """No event of another client wakes the loop."""
    with server.connect() as client:
        began = time.monotonic()
        client.send(b"G")
        time.sleep(0.7)  # the pace of this client
        assert client.send(b"E").read_answer().code == "REQUEST_TIMEOUT"
        assert DEADLINE - 0.1 < time.monotonic() - began < DEADLINE + 0.4


def test_empty_lines_do_not_extend_the_deadline(server: Server) -> None:
    """The deadline runs from the first byte, even if that is part of an empty line; later bytes do not move it."""
    with server.connect() as client:
        for _ in range(3):
            client.send(b"\r\n")
            time.sleep(0.4)  # the pace of this client
        assert client.read_answer().code == "REQUEST_TIMEOUT"


def test_a_request_begun_behind_an_answer_that_is_not_taken_gains_no_time(server: Server) -> None:
    """A 408 would be another unread answer with a deadline of its own, and so on for ever."""
    with server.connect(receive_buffer=4096) as client:
        client.send(GET % b"/big" + b"GET / HT")
        wait_until(lambda: all_hung_up([client]))


def test_a_refused_client_that_drips_is_dropped(server: Server) -> None:
    """The server reads and drops all bytes after the refusal for two seconds; no byte extends that."""
    with server.connect() as client:
        assert client.send(b"nonsense\r\n").read_answer().code == "BAD_REQUEST"

        def is_dropped() -> bool:
            with contextlib.suppress(OSError):
                return not client.stream.send(b"x")
            return True

        wait_until(is_dropped)


def test_a_slow_client_that_is_done_within_the_deadline_is_served(server: Server) -> None:
    with server.connect() as client:
        for piece in (b"POST / HT", b"TP/1.1\r\nHo", b"st: a\r\nContent-Length: 5\r", b"\n\r", b"\n12", b"345"):
            client.send(piece)
            time.sleep(0.1)  # the pace of this client
        assert client.read_answer().body == b"12345"


@pytest.mark.parametrize(
    ("opening", "rest"),
    [(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n", b"x" * 100_000), (b"", b"\r\n" * 50_000)],
)
def test_refused_clients_that_go_on_sending_delay_no_other(server: Server, opening: bytes, rest: bytes) -> None:
    """The server reads and drops all bytes after a refusal, for two seconds at most."""
    stop = threading.Event()

    def blast() -> None:
        with server.connect() as client, contextlib.suppress(OSError):
            client.send(opening)
            while not stop.is_set():
                client.send(rest)

    threads = [threading.Thread(target=blast) for _ in range(30)]
    for thread in threads:
        thread.start()
    assert slowest_probe(server, 0.3) < PROMPT
    stop.set()
    for thread in threads:
        thread.join()
