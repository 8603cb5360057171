"""What well-behaved clients rely on: keep-alive, pipelining, HEAD, large answers, Expect, a clean end."""

import contextlib
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.production import connection, connection_loop
from backend.production.connection import Connection
from backend.production.connection_loop import ConnectionLoop
from backend.production.wsgi import WholeRequest
from tests.production.gunicorn_server import GET, LONG_STOP, Server, gunicorn
from tests.waiting import wait_until

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with gunicorn(log, "--keep-alive", "60") as running:
        yield running
    assert "Traceback" not in log.read_text()


def test_a_connection_serves_one_request_after_the_other(server: Server) -> None:
    with server.connect() as client:
        for number in range(50):
            answer = client.send(POST % (5, b"x y%02d" % number)).read_answer()
            assert (answer.body, answer.headers["connection"]) == (b"x y%02d" % number, "keep-alive")


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """However TCP splits the bytes into segments.

    The bodies have a space: `07POST` is a valid method, so a body `07` left in the buffer would go unnoticed.
    """
    bodies = [b"x y%02d" % number for number in range(20)]
    requests = b"".join(POST % (5, body) for body in bodies)
    for size in (1, 7, 100, len(requests) - 10):
        with server.connect() as client:
            for start in range(0, len(requests), size):
                client.send(requests[start : start + size])
            assert [client.read_answer().body for _ in range(20)] == bodies


def test_short_requests_do_not_overtake_others_of_their_connection(server: Server) -> None:
    """They run on the loop, between requests that run in the pool."""
    paths = [b"/short" if number % 3 else b"/sleep/0.01" for number in range(200)]
    with server.connect() as client:
        for number, path in enumerate(paths):
            client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nx y%03d" % (path, number))
        assert [client.read_answer().body for _ in paths] == [b"x y%03d" % number for number in range(200)]


def test_a_thousand_short_requests_at_once_are_answered(server: Server) -> None:
    with server.connect() as client:
        client.send(GET % b"/short" * 1000)
        assert all(client.read_answer().status == 200 for _ in range(1000))


def test_short_requests_are_answered_while_all_threads_are_busy(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log") as server, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(server.connect()).send(GET % b"/held") for _ in range(4)]
        wait_until(lambda: server.ask(GET % b"/short/called").body == b"4")
        assert server.ask(GET % b"/short").status == 200
        assert server.ask(GET % b"/short/release").status == 200
        assert [client.read_answer().status for client in busy] == [200] * 4


def test_a_client_that_pipelines_and_does_not_read_is_served_no_faster_than_it_reads(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log") as server, server.connect() as client:
        client.send(GET % b"/big" * 5)
        server.probe()
        assert [len(client.read_answer().body) for _ in range(5)] == [5_000_000] * 5


def test_head_has_the_headers_of_get_and_no_body(server: Server) -> None:
    with server.connect() as client:
        client.send(b"HEAD /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_answer(to_head=True).headers["content-length"] == "5000000"
        assert client.send(POST % (3, b"abc")).read_answer().body == b"abc"


def test_a_large_answer_arrives_whole_and_the_connection_goes_on(server: Server) -> None:
    with server.connect() as client:
        for _ in range(3):
            assert client.send(GET % b"/big").read_answer().body == b"x" * 5_000_000


def test_a_client_that_asks_to_close_gets_its_whole_answer_and_then_the_end(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\nmore, never read")
        answer = client.read_answer()
        assert (len(answer.body), answer.headers["connection"]) == (5_000_000, "close")
        assert client.ends()


def test_a_client_that_closes_its_side_after_a_whole_request_is_answered(server: Server) -> None:
    with server.connect() as client:
        client.send(POST % (3, b"abc")).stream.shutdown(1)
        assert client.read_answer().body == b"abc"
        assert client.ends()


def test_a_client_that_waits_for_100_continue_gets_it_once_and_before_its_body(server: Server) -> None:
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
        assert client.read_answer().status == 100
        client.send(b"ab")
        client.send(b"c")
        assert client.read_answer().body == b"abc"


def test_a_100_continue_that_finds_the_socket_full_is_sent_once_there_is_room() -> None:
    """The client has not read its previous answer yet. Without the 100, it would wait until its deadline."""
    requests: list[WholeRequest] = []
    ours, theirs = socket.socketpair()
    with selectors.DefaultSelector() as poller, ours, theirs:
        loop = ConnectionLoop(
            poller, lambda conn, request: requests.append(request), ours_is_closed, 60, 60, frozenset()
        )
        theirs.settimeout(30)
        loop.begin(Connection(ours, "", ""))
        filled = fill(ours)
        theirs.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        turn(poller)
        assert len(theirs.recv(filled, socket.MSG_WAITALL)) == filled
        turn(poller)
        assert theirs.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        theirs.sendall(b"abc")
        turn(poller)
        assert [request.body for request in requests] == [b"abc"]


def turn(poller: selectors.BaseSelector) -> None:
    """One turn of the worker's loop."""
    for key, _ in poller.select(0):
        key.data(key.fileobj)


def fill(stream: socket.socket) -> int:
    """Send until the kernel takes no more; returns the number of bytes that it took."""
    filled = 0
    for size in (65536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += stream.send(b"x" * size)
    return filled


def ours_is_closed(conn: Connection) -> None:
    raise AssertionError("the connection was closed")


def test_no_100_continue_is_sent_if_the_body_has_come_or_is_not_wanted(server: Server) -> None:
    with server.connect() as client:
        head = b"POST / HTTP/1.%d\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        assert client.send(head % (1, 3) + b"abc").read_answer().body == b"abc"
        assert client.send(head % (1, 65537)).read_answer().status == 413
    with server.connect() as client:
        client.send(head % (0, 3))
        time.sleep(0.1)  # no 100 comes, and there is no event to wait for
        assert client.send(b"abc").read_answer().status == 200


def test_curl_does_not_stall_on_expect(server: Server) -> None:
    """Without a 100, curl waits before it sends its body: here for longer than it may take."""
    url = f"http://127.0.0.1:{server.address[1]}/"
    command = ["curl", "-sS", "-H", "Expect: 100-continue", "--expect100-timeout", "60", "-m", "30", "-d", "abc", url]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "abc"


def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    """After `keepalive` seconds, here 1, and without an answer."""
    options = ("--keep-alive", "1")
    with gunicorn(tmp_path / "log", *options) as server, server.connect() as client:
        began = time.monotonic()
        client.send(GET % b"/").read_answer()
        assert client.ends()
        assert time.monotonic() - began >= 1


class Patience:
    """A connection to a loop that answers each request with 1 MB, and whose clock a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> None:
        self.now = 0.0
        for module in (connection, connection_loop):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self._poller = stack.enter_context(selectors.DefaultSelector())
        ours, self.theirs = (stack.enter_context(end) for end in socket.socketpair())
        self._loop = ConnectionLoop(self._poller, self._answer, self._closed, 4, 2, frozenset())
        self.is_closed = False
        self._loop.begin(Connection(ours, "", ""))
        self.theirs.settimeout(30)

    def _answer(self, conn: Connection, request: WholeRequest) -> None:
        conn.put(b"x" * 1_000_000)
        self._loop.answer(conn, request.keeps_connection)

    def _closed(self, conn: Connection) -> None:
        self.is_closed = True

    def send(self, data: bytes) -> None:
        self.theirs.sendall(data)
        turn(self._poller)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._loop.close_overdue()

    def take_answer(self) -> None:
        left = 1_000_000
        while left:
            data = self.theirs.recv(left)
            assert data, "the connection was closed"
            left -= len(data)
            turn(self._poller)

    def rest(self) -> bytes:
        """What comes until the connection ends."""
        return b"".join(iter(lambda: self.theirs.recv(65536), b""))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Patience]:
    with contextlib.ExitStack() as stack:
        yield Patience(monkeypatch, stack)


def test_each_request_of_a_connection_has_the_whole_deadline(client: Patience) -> None:
    """Here 4 s, from its first byte or, if later, from the end of the previous answer, which has 4 s as well."""
    client.wait(3.9)
    client.send(b"GET / HTTP/1.1\r\n")
    client.wait(3.9)
    client.send(b"Host: a\r\n\r\nGET / HTTP/1.1\r\n")
    client.wait(3.9)
    client.take_answer()
    client.wait(3.9)
    client.send(b"Host: a\r\n\r\n")
    client.take_answer()


@pytest.mark.parametrize(("first", "later"), [(b"G", b""), (b"\r\n", b"\r\n"), (b"GET / HTTP/1.1\r\n", b"X: y\r\n")])
def test_bytes_that_come_later_do_not_extend_a_deadline(client: Patience, first: bytes, later: bytes) -> None:
    client.send(first)
    for _ in range(3):
        client.wait(1.25)
        client.send(later)
    client.wait(0.25)
    assert b" 408 " in client.rest()


def test_an_idle_connection_has_its_own_deadline(client: Patience) -> None:
    """Here 2 s, from the end of the answer."""
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.wait(3)
    client.take_answer()
    client.wait(1.9)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.take_answer()
    client.wait(2)
    assert client.rest() == b""


@pytest.mark.parametrize("waited", [0, 2], ids=["no request before", "after an answer"])
def test_a_request_that_came_just_before_its_connection_expires_is_answered(client: Patience, waited: int) -> None:
    """The request comes and the deadline passes while the loop is busy. The request is served first."""
    if waited:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.take_answer()
    client.theirs.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.wait(waited or 4)
    client.take_answer()
    client.wait(2)
    assert client.rest() == b""


def test_a_client_that_does_not_close_after_its_last_answer_is_closed_after_two_seconds(client: Patience) -> None:
    """Until then the server reads and drops all bytes: closing at once might cost the client its answer."""
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    client.take_answer()
    assert client.rest() == b""
    for _ in range(3):
        client.wait(0.5)
        client.send(b"dropped")
    assert not client.is_closed
    client.wait(0.5)
    assert client.is_closed


def test_a_client_that_ends_after_an_empty_line_gets_no_refusal(server: Server) -> None:
    """Some clients send an empty line after each body. It begins no request."""
    with server.connect() as client:
        client.send(POST % (3, b"x y") + b"\r\n").stream.shutdown(1)
        assert client.read_answer().body == b"x y"
        assert client.ends()


def test_a_unix_socket_keeps_the_same_promises(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with gunicorn(tmp_path / "log", bind=f"unix:{path}") as server, server.connect() as client:
        assert client.send(POST % (3, b"abc") + GET % b"/big").read_answer().body == b"abc"
        assert len(client.read_answer().body) == 5_000_000


def test_a_unix_socket_has_the_same_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    options = {"bind": f"unix:{path}", "REQUEST_TIMEOUT_SECONDS": "1"}
    with gunicorn(tmp_path / "log", **options) as server, contextlib.ExitStack() as stack:
        with server.stopped():
            clients = [stack.enter_context(server.connect()).send(b"G") for _ in range(20)]
        assert [client.read_answer().code for client in clients] == ["REQUEST_TIMEOUT"] * 20


def test_a_worker_that_reaches_max_requests_is_replaced_and_loses_no_request(tmp_path: Path) -> None:
    """Connected clients get `Connection: close`, and no answer is missing."""
    with gunicorn(tmp_path / "log", "--max-requests", "40", "--keep-alive", "60") as server:
        workers = set()
        while len(workers) < 3:
            with server.connect() as client:
                for _ in range(15):
                    answer = client.send(GET % b"/pid").read_answer()
                    workers.add(answer.body)
                    if answer.headers["connection"] == "close":
                        break


def test_on_sigterm_running_requests_finish_and_readyz_reports_the_stop(tmp_path: Path) -> None:
    """On open connections and, for a while, on new ones. Idle ones are closed, and the server ends."""
    options = ("--keep-alive", "60", *LONG_STOP)
    with (
        gunicorn(tmp_path / "log", *options) as server,
        server.connect() as running, server.connect() as idle, server.connect() as other,
    ):  # fmt: skip
        assert idle.send(GET % b"/readyz").read_answer().body == b"0"
        assert other.send(GET % b"/readyz").read_answer().body == b"0"
        running.send(GET % b"/held")
        wait_until(lambda: server.ask(GET % b"/short/called").body == b"3")  # with the two above
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask(GET % b"/readyz").body == b"1")
        last = idle.send(GET % b"/readyz").read_answer()
        assert (last.body, last.headers["connection"]) == (b"1", "close")
        assert server.ask(GET % b"/short/release").status == 200
        assert running.read_answer().status == 200
        assert other.ends()
        assert server.process.wait(60) == 0
