"""The load client counts answers, detects wrong ones, and spreads over all workers."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench import client
from tests.bench.client import Clients, Outcome, WrongAnswer, is_whole
from tests.bench.furniture import ITEMS, ORDERS, furniture
from tests.bench.jobs import Job, get
from tests.bench.servers import GTHREAD, running

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def a_server(answers: Callable[[int], bytes]) -> Iterator[tuple[str, int]]:
    """A server that answers the n-th request of a connection by `answers(n)`; with no bytes it closes."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                stream = listener.accept()[0]
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=converse, args=[stream], daemon=True).start()

    def converse(stream: socket.socket) -> None:
        with closing(stream), suppress(OSError):
            number = 0
            while stream.recv(1000) and (answer := answers(number)):
                for byte_or_two in (answer[:20], answer[20:]):  # in pieces
                    stream.sendall(byte_or_two)
                number += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def asked(address: tuple[str, int]) -> Outcome:
    """By two clients, for a tenth of a second."""
    connections = [socket.create_connection(address) for _ in range(2)]
    job = Job([get("/")], b"hello", 1)
    with ExitStack() as streams:
        for connection in connections:
            streams.enter_context(connection)
        return Clients(address, connections, job, itertools.cycle(job.requests)).ask(0.1)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients' clock: each look at it takes a tenth of a millisecond, however busy the machine is."""
    ticks = itertools.count()
    monkeypatch.setattr(client, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 10_000))


@pytest.mark.usefixtures("ticking")
def test_every_answer_is_counted_by_its_status():
    with a_server(lambda number: BUSY if number % 10 == 9 else GOOD) as address:
        outcome = asked(address)
    assert outcome.answers.keys() == {"200", "503"}
    assert outcome.refused == outcome.answers["503"] > 0
    assert outcome.rate == pytest.approx(outcome.answers["200"] / 0.1)
    assert outcome.percentile(0) <= outcome.percentile(0.5) <= outcome.percentile(1)


@pytest.mark.usefixtures("ticking")
def test_a_closed_connection_is_a_lost_answer_and_is_opened_again():
    with a_server(lambda number: GOOD if number < 3 else b"") as address:
        outcome = asked(address)
    assert outcome.answers["lost"] > 1
    assert outcome.answers["200"] > 6


def test_a_request_without_an_answer_at_the_end_counts_with_its_wait_so_far():
    with a_server(lambda number: b"HTTP/1.1 200 OK\r\n") as address:  # and no more
        outcome = asked(address)
    assert outcome.answers == {}
    assert len(outcome.waits) == 2
    assert outcome.percentile(0) >= 1000


def test_a_good_status_over_a_wrong_body_is_an_error():
    with a_server(lambda number: GOOD.replace(b"hello", b"other")) as address, pytest.raises(WrongAnswer):
        asked(address)


@pytest.mark.parametrize("answer", [GOOD, BUSY, b"HTTP/1.1 200 OK\r\n\r\n5\r\nhello\r\n0\r\n\r\n"])
def test_an_answer_is_complete_at_its_last_byte(answer: bytes):
    assert [is_whole(answer[:length]) for length in range(len(answer) + 1)] == [False] * len(answer) + [True]


def test_connections_are_shared_evenly_by_the_workers(tmp_path: Path):
    with running((*GTHREAD, "tests.bench.peers.bare_function:application"), tmp_path, get("/1"), {}) as server:
        connections = server.connect(10)
        ports = {connection.getsockname()[1] for connection in connections}
        assert [len(ports & ports_of(worker)) for worker in server.workers()] == [5, 5]
        for connection in connections:
            connection.close()
        server.jobs = {"seven bytes": Job([get("/7")], b"_", 7)}
        outcome = server.load("seven bytes", clients=4, seconds=1)
    assert outcome.good > 0
    assert outcome.refused == 0
    assert outcome.cpu > 0
    assert outcome.memory > 5


def ports_of(worker: int) -> set[int]:
    """The ports of the clients whose connections this worker has taken."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{worker}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}


def test_every_caller_has_all_orders():
    tables = furniture(iter(map(str, range(10_000))).__next__)
    assert len(tables["order_items"]) == len(tables["orders"]) * ITEMS
    assert sum(order["user_id"] == tables["users"][3]["id"] for order in tables["orders"]) == ORDERS
