"""`serve`: Werkzeug's development server, from the first line it prints to the last."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.running import ROOT, development_server, refused, run
from tests.conftest import PASSWORD
from tests.waiting import wait_until
from tests.webhook_receiver import receiving, webhooks

JSON = {"Content-Type": "application/json"}
RELOAD_SECONDS = 180  # two processes start, one after the other, and then the new code
ADA = json.dumps({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"})


def ask(port, method, path, body=None, headers=None):
    """One request; status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def exchange(port, request):
    """Send raw bytes and keep the connection open. Returns what arrives until the server closes it.

    All are sent at once: Werkzeug closes a connection 10 ms after the last bytes that it does not need.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        stream.sendall(request)
        stream.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: stream.recv(65536), b""))


@pytest.fixture
def server(tmp_path):
    with development_server(tmp_path / "app.db") as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server for tests that leave nothing behind."""
    with development_server(tmp_path_factory.mktemp("shared") / "app.db") as server:
        yield server


@pytest.fixture
def checkout(tmp_path):
    """A copy of the code, to be changed. Its server waits as long for what is under way as a busy machine may take."""
    folder = tmp_path / "checkout"
    for name in ("backend", "sql"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", folder)
    change(folder / "backend/cli/development_server.py", "FINISH_SECONDS = 1.0", "FINISH_SECONDS = 60.0")
    change(folder / "backend/delivery/relay.py", "STOP_SECONDS = 1.0", "STOP_SECONDS = 60.0")
    return folder


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    write(file, text.replace(before, after))


def write(file: Path, text: str) -> None:
    """Write a file in one step, as editors do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_migrates_and_answers_until_it_is_stopped(tmp_path, number):
    with development_server(tmp_path / "app.db", WEB_CONCURRENCY=" ") as server:
        assert ask(server.port, "GET", "/readyz")[0] == 200
        status, printed = server.end(number)
        assert (status, printed.splitlines()[-1]) == (0, "Stopped")
        assert "Traceback" not in server.errors()
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)  # no process is left
    assert run(tmp_path / "app.db", "check").returncode == 0


def test_signals_that_repeat_while_connections_arrive_end_it_once(tmp_path):
    """Without a message of a thread that one of them has interrupted."""
    with development_server(tmp_path / "app.db") as server, ThreadPoolExecutor(4) as clients:
        for _ in range(4):
            clients.submit(lambda: [ask(server.port, "GET", "/healthz") for _ in range(1000)])  # until it is refused
        wait_until(lambda: server.errors().count("/healthz") > 20)
        for number in (signal.SIGINT, signal.SIGTERM) * 10:
            server.process.send_signal(number)
        status, printed = server.end(signal.SIGINT)
        assert (status, printed.splitlines()[-1]) == (0, "Stopped")
        assert "Traceback" not in server.errors()


def test_it_prints_the_address_of_its_page_and_commands_that_can_be_pasted(server):
    """Once it listens. Port 0 is any that is free."""
    assert server.first_line == f"Read and try the API on http://127.0.0.1:{server.port}/docs\n"
    socket.create_connection(("127.0.0.1", server.port), timeout=30).close()
    _, printed = server.end(signal.SIGINT)
    assert printed.splitlines()[1] == f"  curl -s http://127.0.0.1:{server.port}/healthz"


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_an_ipv6_address_is_printed_as_urls_have_it(tmp_path):
    with development_server(tmp_path / "app.db", BIND="[::1]:0") as server:
        assert server.first_line == f"Read and try the API on http://[::1]:{server.port}/docs\n"
        socket.create_connection(("::1", server.port), timeout=30).close()


def test_an_address_in_use_stops_the_start_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(tmp_path / "app.db", "serve", BIND=address)
    assert refused(done).startswith(f"BIND was '{address}'; it must be an address to listen on (Address already in use")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:0,[::1]:0", "unix:/tmp/socket", "fd://99", "fd://0", "no-such-host.invalid:80", "192.0.2.1:80"],
)
def test_an_unusable_address_stops_the_start_with_one_line(tmp_path, address):
    done = run(tmp_path / "app.db", "serve", BIND=address)
    assert refused(done).startswith(f"BIND was {address!r}; ") and "must be" in done.stderr
    assert done.stdout == ""


def test_a_listening_descriptor_is_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with development_server(tmp_path / "app.db", BIND=f"fd://{number}", pass_fds=(number,)) as server:
            assert server.port == listener.getsockname()[1]
            assert ask(server.port, "GET", "/healthz")[0] == 200


def test_the_whole_contract_is_served(server):
    """HEAD and 204 without a body, 304, pages, errors. Without a terminal, each request is logged as one JSON line."""
    status, headers, body = ask(server.port, "HEAD", "/healthz")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 0
    assert ask(server.port, "POST", "/api/v1/users", ADA, JSON)[0] == 201
    _, _, pair = ask(server.port, "POST", "/api/v1/auth/login", ADA.replace(', "name": "Ada"', ""), JSON)
    token = {"Authorization": f"Bearer {json.loads(pair)['data']['accessToken']}"}
    _, headers, me = ask(server.port, "GET", "/api/v1/users/me", None, token)
    path = f"/api/v1/users/{json.loads(me)['data']['id']}"
    status, _, body = ask(server.port, "GET", path, None, token | {"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, b"")
    status, _, body = ask(server.port, "DELETE", "/api/v1/auth/sessions", None, token)
    assert (status, body) == (204, b"")
    assert ask(server.port, "GET", "/openapi.json")[0] == 200
    start, *lines = [json.loads(line) for line in server.errors().splitlines()]
    assert start["message"].startswith("reference-backend ")
    assert [line["status"] for line in lines] == [200, 201, 200, 200, 304, 204, 200]


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"LENGTH_REQUIRED"),
        (b"Transfer-Encoding: chunked\r\n", b"nonsense", b"LENGTH_REQUIRED"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"{}", b"LENGTH_REQUIRED"),
        (b"Content-Length: two\r\n", b"{}", b"BAD_REQUEST"),
        (b"Content-Length: -2\r\n", b"{}", b"BAD_REQUEST"),
        (b"Content-Length: 70000\r\n", b" " * 70_000, b"PAYLOAD_TOO_LARGE"),
        (b"Content-Length: 9\r\nContent-Type: application/json\r\n", b"{}", b"MALFORMED_JSON"),
        (
            b"Expect: 100-continue\r\nContent-Length: 2\r\nContent-Type: application/json\r\n",
            b"{}",
            b"VALIDATION_ERROR",
        ),
    ],
)
def test_a_badly_framed_body_gets_an_error_envelope(shared, head, body, code):
    """No traceback is printed, and the next request is served."""
    request = b"POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n"
    answer = exchange(shared.port, request + body)
    assert b'"error":{"code":"' + code + b'"' in answer
    assert ask(shared.port, "GET", "/healthz")[0] == 200
    assert "Traceback" not in shared.errors()


@pytest.mark.parametrize(
    ("request_line", "head", "status", "code"),
    [
        (b"GET http://[ HTTP/1.1", b"", 400, "BAD_REQUEST"),
        (b"GET //[/healthz HTTP/1.1", b"", 400, "BAD_REQUEST"),
        (b"GET /healthz HTTP/2.0", b"", 400, "BAD_REQUEST"),
        (b"GET /healthz and more HTTP/1.1", b"", 400, "BAD_REQUEST"),
        (b"\x16\x03\x01\x02", b"", 400, "BAD_REQUEST"),
        (b"GET //healthz HTTP/1.1", b"", 404, "NOT_FOUND"),
        (b"GET healthz HTTP/1.1", b"", 404, "NOT_FOUND"),
        (b"GET /" + b"a" * 65_532, b"", 414, "URI_TOO_LONG"),  # as much as is read: what is not read resets the answer
        (b"GET /healthz HTTP/1.1", b"X: y\r\n" * 101, 431, "HEADERS_TOO_LARGE"),
    ],
)
def test_a_head_that_cannot_be_parsed_or_routed_gets_an_envelope(shared, request_line, head, status, code):
    """No traceback is printed, and the log line has no byte that controls a terminal."""
    answered, _, body = exchange(shared.port, request_line + b"\r\n" + head + b"\r\n").partition(b"\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 %d " % status)
    envelope = json.loads(body)
    assert envelope["error"]["code"] == code
    assert f"X-Request-ID: {envelope['meta']['requestId']}".encode() in answered
    assert b"Content-Security-Policy: default-src 'none'" in answered
    assert ask(shared.port, "GET", "/healthz")[0] == 200
    assert "Traceback" not in shared.errors()
    assert all(json.loads(line) for line in shared.errors().splitlines())


def test_an_answer_comes_before_a_body_that_never_ends(shared):
    """A client that keeps a refused chunked request open gets the refusal at once."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as stream:
        stream.sendall(b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        assert stream.recv(100).startswith(b"HTTP/1.1 411 ")


def test_clients_are_served_beside_one_that_stalls(shared):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as stream:
        stream.sendall(b"POST /api/v1/users HTTP/1.1\r\n")
        assert ask(shared.port, "GET", "/healthz")[0] == 200


def test_deliveries_left_by_another_process_are_made_without_a_request(tmp_path, database_path):
    with receiving() as (receiver, port):
        hooks = webhooks(port)
        assert run(database_path, "create-admin", "root@example.com", ADMIN_PASSWORD=PASSWORD, **hooks).returncode == 0
        assert receiver.arrivals == []
        with development_server(database_path, **hooks):
            wait_until(lambda: bool(receiver.arrivals))


def test_a_delivery_under_way_at_the_stop_is_finished_and_written_down(tmp_path, checkout):
    """So that no other process makes it again."""
    stopping, command = threading.Event(), [sys.executable, str(checkout / "app.py")]
    with receiving() as (receiver, port), development_server(tmp_path / "app.db", command, **webhooks(port)) as server:
        receiver.answer = lambda *_: stopping.wait(30) and (204, {})
        assert ask(server.port, "POST", "/api/v1/users", ADA, JSON)[0] == 201
        wait_until(lambda: bool(receiver.arrivals))
        server.process.send_signal(signal.SIGTERM)
        stopping.set()
        assert server.process.wait(60) == 0
        assert len(receiver.arrivals) == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as database:
        owed = database.execute("SELECT count(*) FROM deliveries WHERE subscriber LIKE 'webhook%'").fetchone()
    assert owed == (0,)


def health(port):
    """The status that `/healthz` answers with."""
    return json.loads(ask(port, "GET", "/healthz")[2])["data"]["status"]


def newest_migration(path):
    with contextlib.closing(sqlite3.connect(path, 60)) as database:
        return database.execute("SELECT max(version) FROM schema_migrations").fetchone()[0]


def test_changed_code_is_served_on_the_same_port_without_a_restart(tmp_path, checkout):
    """The same process reloads, answers every request, applies a new migration and still stops cleanly."""
    with development_server(tmp_path / "app.db", [sys.executable, str(checkout / "app.py")]) as server:
        assert health(server.port) == "ok"
        change(checkout / "backend/routes/service.py", 'Status("ok")', 'Status("changed")')
        wait_until(lambda: health(server.port) == "changed", RELOAD_SECONDS)
        server.await_reload()
        write(checkout / "sql/sqlite/0999_notes.sql", "CREATE TABLE notes (text TEXT) STRICT;\n")
        wait_until(lambda: newest_migration(tmp_path / "app.db") == 999, RELOAD_SECONDS)
        server.await_reload()
        status, printed = server.end(signal.SIGTERM)
        assert (status, printed) == (0, "Stopped\n")
    assert "newer" in refused(run(tmp_path / "app.db", "check"))


def test_code_that_cannot_build_the_application_or_migrate_is_shown_and_the_old_code_keeps_serving(tmp_path, checkout):
    """A URL table that names what is not imported yet, and half a migration."""
    migration = checkout / "sql/sqlite/0999_notes.sql"
    with development_server(tmp_path / "app.db", [sys.executable, str(checkout / "app.py")]) as server:
        change(checkout / "app.py", "        self.routes = [", "        notes = NoteRoutes()\n        self.routes = [")
        wait_until(lambda: "NoteRoutes" in server.errors(), RELOAD_SECONDS)
        assert health(server.port) == "ok"
        write(migration, "CREATE TABLE notes (")
        change(checkout / "app.py", "NoteRoutes()", "None")
        wait_until(lambda: "incomplete input" in server.errors(), RELOAD_SECONDS)
        assert health(server.port) == "ok"
        write(migration, "CREATE TABLE notes (text TEXT) STRICT;\n")
        wait_until(lambda: newest_migration(tmp_path / "app.db") == 999, RELOAD_SECONDS)
        server.await_reload()
        change(checkout / "backend/routes/service.py", 'Status("ok")', 'Status("mended")')
        wait_until(lambda: health(server.port) == "mended", RELOAD_SECONDS)


def test_an_import_error_is_shown_and_the_old_code_keeps_serving(tmp_path, checkout):
    with development_server(tmp_path / "app.db", [sys.executable, str(checkout / "app.py")]) as server:
        change(checkout / "backend/routes/service.py", 'Status("ok")', "Status(broken(]")
        wait_until(lambda: "SyntaxError" in server.errors(), RELOAD_SECONDS)
        assert health(server.port) == "ok"
        change(checkout / "backend/routes/service.py", "Status(broken(]", 'Status("mended")')
        wait_until(lambda: health(server.port) == "mended", RELOAD_SECONDS)
