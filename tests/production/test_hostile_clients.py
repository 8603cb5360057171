"""A well-behaved client is answered whatever others do, and every connection ends by a deadline."""

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.production.gunicorn_server import GET, Server, gunicorn, open_crowd
from tests.production.raw_client import Client, ends_of
from tests.production.real_service import ports_of
from tests.waiting import wait_until

DEADLINE = 1.0  # seconds

OPENINGS = {
    "silent": b"",
    "one byte": b"G",
    "an empty line": b"\r\n",
    "dripping": b"G",
    "stalled head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "stalled body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
    "half a request behind a whole one": GET % b"/" + b"GET / HT",
    "not closing": b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "not closing when refused": b"nonsense\r\n",
    "never reading": GET % b"/big",
}
BEGUN = {"one byte", "an empty line", "dripping", "stalled head", "stalled body", "half a request behind a whole one"}
ANSWERED = {"not closing", "not closing when refused"}  # at once, and the connection ends with the answer


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its deadline is so long that a client that has to wait for one of another gives up."""
    yield from serve(tmp_path_factory.mktemp("patient") / "log")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nothing but the deadline closes a connection of its clients."""
    yield from serve(
        tmp_path_factory.mktemp("server") / "log", "--keep-alive", "600", REQUEST_TIMEOUT_SECONDS=str(DEADLINE)
    )


def serve(log: Path, *options: str, **settings: str) -> Iterator[Server]:
    with gunicorn(log, *options, **settings) as running:
        yield running
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Booting worker") == 1


@contextlib.contextmanager
def dripping(clients: list[Client]) -> Iterator[None]:
    """Each client, which has sent the first byte of a head, sends another twenty times a second."""
    stop = threading.Event()
    sent: dict[Client, int] = {}

    def drip() -> None:
        head = b"ET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 1000
        while not stop.wait(0.05):
            for client in list(clients):
                index = sent[client] = sent.get(client, -1) + 1
                with contextlib.suppress(OSError):
                    client.stream.send(head[index : index + 1])

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def connected(server: Server, opening: bytes, receive_buffer: int = 0) -> Iterator[tuple[Client, float]]:
    """A client that has sent its opening before the worker accepts its connection, and a time before that."""
    with contextlib.ExitStack() as stack:
        with server.stopped():
            client = stack.enter_context(server.connect(receive_buffer=receive_buffer)).send(opening)
            before = time.monotonic()
        yield client, before


@pytest.mark.parametrize("kind", OPENINGS)
def test_hostile_clients_delay_no_other(patient: Server, kind: str) -> None:
    """As many clients as threads, then 40 more, then 200 more."""
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:
        if kind == "dripping":
            stack.enter_context(dripping(clients))
        for count in (4, 40, 200):
            clients += open_crowd(stack, patient, count, OPENINGS[kind], 4096 if kind == "never reading" else 0)
            patient.probe()


@pytest.mark.parametrize("kind", OPENINGS)
def test_hostile_clients_are_closed_by_the_deadline_and_not_before(server: Server, kind: str) -> None:
    """Those that have begun a request get a 408."""
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:
        if kind == "dripping":
            stack.enter_context(dripping(clients))
        with server.stopped():
            clients += open_crowd(stack, server, 50, OPENINGS[kind], 4096 if kind == "never reading" else 0)
            began = time.monotonic()
        if kind == "never reading":
            wait_until(lambda: all_answered_and_closed(clients, server))
        ends = ends_of(clients, 30)
    for end in ends:
        assert (b"HTTP/1.1 408 " in end.data and b'"REQUEST_TIMEOUT"' in end.data) == (kind in BEGUN)
        assert end.reset == (kind == "never reading")
        assert kind in ANSWERED or end.time - began >= DEADLINE


def all_answered_and_closed(clients: list[Client], server: Server) -> bool:
    """Whether the worker has begun all answers and closed all connections. Nothing is read from them.

    The worker's sockets tell, because a reset can be lost: beyond a full window the client's kernel drops it.
    """
    poll = select.poll()
    for client in clients:
        poll.register(client.stream, select.POLLIN)
    (worker,) = server.workers()
    return len(poll.poll(0)) == len(clients) and not ports_of(worker) & {
        client.stream.getsockname()[1] for client in clients
    }


def test_a_client_that_takes_its_answer_byte_by_byte_is_cut_off_at_the_deadline(server: Server) -> None:
    """The deadline is for the whole answer; a socket time-out would start again with each byte."""
    with connected(server, GET % b"/big", receive_buffer=4096) as (client, began):
        with contextlib.suppress(ConnectionResetError):  # it may come between the two calls
            while not all_answered_and_closed([client], server):
                assert client.stream.recv(1)
                assert time.monotonic() < began + 30
                time.sleep(0.01)
        assert time.monotonic() - began >= DEADLINE


def test_a_lone_client_is_refused_at_its_deadline(server: Server) -> None:
    """No event of another client wakes the loop."""
    with connected(server, b"G") as (client, began):
        assert client.read_answer().code == "REQUEST_TIMEOUT"
        assert time.monotonic() - began >= DEADLINE


def test_empty_lines_do_not_extend_the_deadline(server: Server) -> None:
    """The deadline runs from the first byte, even if that is part of an empty line; later bytes do not move it."""
    with connected(server, b"\r\n") as (client, _):
        for _ in range(2):
            time.sleep(0.4)  # the pace of this client
            with contextlib.suppress(OSError):  # the connection has ended, for this process was slow
                client.send(b"\r\n")
        assert client.read_answer().code == "REQUEST_TIMEOUT"


def test_a_request_begun_behind_an_answer_that_is_not_taken_gains_no_time(server: Server) -> None:
    """A 408 would be another unread answer with a deadline of its own, and so on for ever."""
    with connected(server, GET % b"/big" + b"GET / HT", receive_buffer=4096) as (client, _):
        wait_until(lambda: all_answered_and_closed([client], server))


def test_a_refused_client_that_drips_is_dropped(server: Server) -> None:
    """The server reads and drops all bytes after the refusal for two seconds; no byte extends that."""
    with connected(server, b"nonsense\r\n") as (client, _):
        assert client.read_answer().code == "BAD_REQUEST"

        def is_dropped() -> bool:
            with contextlib.suppress(OSError):
                return not client.stream.send(b"x")
            return True

        wait_until(is_dropped)


def test_a_slow_client_that_is_done_within_the_deadline_is_served(patient: Server) -> None:
    with patient.connect() as client:
        for piece in (b"POST / HT", b"TP/1.1\r\nHo", b"st: a\r\nContent-Length: 5\r", b"\n\r", b"\n12", b"345"):
            client.send(piece)
            time.sleep(0.1)  # the pace of this client
        assert client.read_answer().body == b"12345"


@pytest.mark.parametrize(
    ("opening", "rest"),
    [(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n", b"x" * 100_000), (b"", b"\r\n" * 50_000)],
)
def test_refused_clients_that_go_on_sending_delay_no_other(patient: Server, opening: bytes, rest: bytes) -> None:
    """The server reads and drops all bytes after a refusal, for two seconds at most."""
    stop = threading.Event()

    def blast() -> None:
        with patient.connect() as client, contextlib.suppress(OSError):
            client.send(opening)
            while not stop.is_set():
                client.send(rest)

    threads = [threading.Thread(target=blast) for _ in range(30)]
    for thread in threads:
        thread.start()
    patient.probe()
    stop.set()
    for thread in threads:
        thread.join()
