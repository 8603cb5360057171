"""The service behind a real nginx with the deployed configuration, over TCP and over a unix socket."""

import contextlib
import http.client
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import PASSWORD, Api, Person
from tests.operations.https_load import nothing_lost
from tests.operations.real_nginx import SECONDS, Nginx, nginx, read_reply
from tests.production.gunicorn_server import Server
from tests.production.real_service import PATIENT, Reply, service
from tests.waiting import wait_until
from tests.wirings import make_app

ADA = {"email": "ada@example.com", "name": "Ada", "password": PASSWORD}
SPOOFED = {"X_Forwarded_For": "198.51.100.7"}


class Deployed(NamedTuple):
    server: Server
    nginx: Nginx


@pytest.fixture
def start_nginx(tmp_path: Path, certificate_of: Any) -> Callable[[str], contextlib.AbstractContextManager[Nginx]]:
    certificate_of("DNS:localhost")
    return lambda upstream: nginx(tmp_path / "nginx", upstream, tmp_path / "certificate.pem", tmp_path / "key.pem")


@pytest.fixture
def start(tmp_path: Path, start_nginx: Any) -> Callable[..., contextlib.AbstractContextManager[Deployed]]:
    """Starts the service on a unix socket, or on TCP, and nginx before it."""

    @contextlib.contextmanager
    def starting(over: str = "unix", **environment: str) -> Iterator[Deployed]:
        bind = f"unix:{tmp_path / 'socket'}" if over == "unix" else "127.0.0.1:0"
        proxies = "unix" if over == "unix" else "127.0.0.1/32"
        settings = {"BIND": bind, "TRUSTED_PROXIES": proxies, **PATIENT} | environment
        with service(tmp_path / "server.log", tmp_path / "app.db", **settings) as server:
            address = bind if over == "unix" else "127.0.0.1:{1}".format(*server.address)
            with start_nginx(address) as running:
                yield Deployed(server, running)

    return starting


def sign_up(running: Nginx) -> Person:
    user = running.call("POST", "/users", json_=ADA).data
    login = running.call("POST", "/auth/login", json_={"email": ADA["email"], "password": PASSWORD}).data
    return Person(user["id"], ADA["email"], login["accessToken"], login["refreshToken"])


def code_of(reply: Reply) -> tuple[int, str]:
    """Status and error code; asserts the envelope."""
    assert set(reply.body) == {"error", "meta"} and reply.body["meta"]["timestamp"]
    assert reply.body["meta"]["requestId"] == reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json" and reply.headers["cache-control"] == "no-store"
    return reply.status, reply.body["error"]["code"]


@pytest.mark.parametrize("over", ["unix", "TCP"])
def test_the_clients_own_address_is_limited_and_logged_whatever_it_says_of_itself(start, over):
    with start(over, RATE_LIMIT_DEFAULT="3/300") as (server, running):
        of_one = [running.call("GET", "/products", source="127.0.0.7", **SPOOFED).status for _ in range(4)]
        assert of_one == [200, 200, 200, 429]
        assert running.call("GET", "/products", source="127.0.0.8", **SPOOFED).status == 200
        server.process.terminate()
        server.process.wait(SECONDS)
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        clients = [line["client"] for line in lines if line.get("path") == "/api/v1/products"]
        assert sorted(clients) == ["127.0.0.7"] * 4 + ["127.0.0.8"]


def test_an_etag_stays_strong_although_nginx_compresses_other_sites(start):
    with start() as (_, running):
        ada = sign_up(running)
        read = running.call("GET", f"/users/{ada.id}", ada, Accept_Encoding="gzip")
        assert "content-encoding" not in read.headers and read.headers["etag"].startswith('"')
        change = {"If_Match": read.headers["etag"], "Accept_Encoding": "gzip"}
        assert running.call("PATCH", f"/users/{ada.id}", ada, {"name": "Ada L."}, **change).status == 200
        assert running.call("PATCH", f"/users/{ada.id}", ada, {"name": "Ada M."}, **change).status == 412


def test_a_chunked_body_arrives_whole(start):
    """The server refuses it; nginx passes it on with a Content-Length."""
    with start("TCP") as (server, running):
        chunks = [piece.encode() for piece in re.findall(".{1,9}", json.dumps(ADA))]
        statuses = []
        direct = http.client.HTTPConnection(*server.address, timeout=SECONDS)
        for connection in (direct, running.open()):
            with contextlib.closing(connection):
                headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
                connection.request("POST", "/api/v1/users", iter(chunks), headers, encode_chunked=True)
                statuses.append(read_reply(connection).status)
        assert statuses == [411, 201]


PROBES = ("/metrics", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?x", "/healthz", "/readyz")


def test_the_public_does_not_reach_a_probe_however_its_path_is_spelt(probed):
    with contextlib.closing(probed.open()) as connection:
        for path in PROBES:
            connection.request("GET", path)
            assert code_of(read_reply(connection)) == (404, "NOT_FOUND"), path


@pytest.fixture
def probed(start):
    with start() as (_, running):
        yield running


def test_this_machine_reaches_the_probes_and_nothing_else(probed):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", probed.local, timeout=SECONDS)) as connection:
        statuses = []
        for path in ("/healthz", "/readyz", "/api/v1/products"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses == [200, 200, 404]


def test_without_tls_the_client_is_sent_to_https(probed):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", probed.plain, timeout=SECONDS)) as connection:
        connection.request("POST", "/api/v1/users?x", headers={"Host": "api.example.org"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, "https://api.example.org/api/v1/users?x")


def test_an_answer_passes_as_the_server_wrote_it(probed):
    reply = probed.call("GET", "/products", X_Request_ID="from-the-client")
    assert reply.headers["x-request-id"] == reply.body["meta"]["requestId"] == "from-the-client"
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    assert reply.headers["server"] == "nginx"  # without its version


def test_what_nginx_refuses_is_the_envelope_too(probed):
    assert code_of(probed.call("POST", "/users", json_={"name": "x" * 65_536})) == (413, "PAYLOAD_TOO_LARGE")
    assert code_of(probed.call("GET", f"/users?q={'x' * 9000}")) == (414, "URI_TOO_LONG")
    assert code_of(probed.call("GET", "/users", X="x" * 9000)) == (431, "HEADERS_TOO_LARGE")
    assert code_of(probed.call("TRACE", "/users")) == (405, "METHOD_NOT_ALLOWED")
    assert code_of(probed.call("GET", "/users", Host="a b")) == (400, "BAD_REQUEST")


def test_the_largest_body_that_the_server_takes_passes(probed):
    empty = len(json.dumps(ADA | {"x": ""}))
    reply = probed.call("POST", "/users", json_=ADA | {"x": "x" * (65_536 - empty)})
    assert (reply.status, reply.body["error"]["details"]) == (422, {"x": "unknown field"})


def test_without_the_server_the_answer_is_a_502_in_the_envelope(start_nginx, tmp_path):
    with start_nginx(f"unix:{tmp_path / 'absent'}") as running:
        assert code_of(running.call("GET", "/products")) == (502, "BAD_GATEWAY")


class Recorder(BaseHTTPRequestHandler):
    """A server that keeps the heads that nginx sends, and the ports from which they come."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.heads.append((self.client_address[1], self.request_version, dict(self.headers)))
        self.send_response(204)
        self.end_headers()

    def finish(self) -> None:
        """The client has closed the connection."""
        self.server.closed.add(self.client_address[1])
        super().finish()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def recorder():
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.heads, server.closed = [], set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_requests_share_connections_to_the_server_and_carry_what_it_needs(start_nginx, recorder):
    address = "127.0.0.1:{1}".format(*recorder.server_address)
    with start_nginx(address) as running, contextlib.closing(running.open("127.0.0.9")) as connection:
        for _ in range(20):
            connection.request("GET", "/", headers={"X-Forwarded-For": "198.51.100.7"})
            connection.getresponse().read()
        wait_until(lambda: recorder.heads[-1][0] in recorder.closed)  # although nginx goes on: an idle one is closed
    ports, versions, heads = zip(*recorder.heads, strict=True)
    assert len(set(ports)) < len(ports) == 20
    assert set(versions) == {"HTTP/1.1"} and "Connection" not in heads[0]
    assert (heads[0]["X-Forwarded-For"], heads[0]["Host"]) == ("127.0.0.9", "localhost")


@pytest.fixture
def ada(settings):
    """A user with a login, and the ids of two accounts: the first has money."""
    with contextlib.closing(make_app(settings)) as app:
        api = Api(app)
        ada = api.sign_up("Ada")
        return ada, [api.account(ada, balance=1_000_000, admin=api.admin()), api.account(ada)]


@pytest.mark.parametrize("over", ["unix", "TCP"])
def test_new_workers_and_a_new_master_lose_no_request(start, ada, over):
    """SIGHUP replaces the workers; SIGUSR2 starts another master on the same listener, and SIGTERM ends the old one.

    PYTHONSAFEPATH: `python -m gunicorn` starts its new master as a script in gunicorn's folder, whose `http` hides
    Python's. The command `gunicorn` does not need it.
    """
    with start(over, PYTHONSAFEPATH="1") as (server, running), nothing_lost(running, *ada) as load:
        old = server.workers()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_workers(2, others_than=old)
        load.wait_for_more()
        old = server.workers()
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: workers_of_new_master(server, old) == 2, SECONDS)
        load.wait_for_more()
        server.process.terminate()
        assert server.process.wait(SECONDS) == 0


def workers_of_new_master(server: Server, workers: list[int]) -> int:
    """How many children the old master's child has that is none of its workers."""
    masters = [pid for pid in server.workers() if pid not in workers]
    return sum(len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) for pid in masters)


def test_servers_that_follow_each_other_on_the_service_managers_socket_lose_no_request(start_nginx, tmp_path, ada):
    """As `systemctl restart` does: the old one has ended before the new one starts."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1024)
        running = stack.enter_context(start_nginx(f"unix:{tmp_path / 'socket'}"))
        for number in range(3):
            options = {"listener": listener, "BIND": "fd://3", "TRUSTED_PROXIES": "unix", **PATIENT}
            with service(tmp_path / f"{number}.log", tmp_path / "app.db", **options) as server:
                if number == 0:
                    load = stack.enter_context(nothing_lost(running, *ada))
                load.wait_for_more()
                if number == 2:
                    stack.pop_all().close()
                server.process.terminate()
                assert server.process.wait(SECONDS) == 0
