"""Requests that the server refuses before the application sees them, and its answers where the application fails."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.production.gunicorn_server import LONG_LINGER, Server, gunicorn
from tests.waiting import wait_until

HOST = b"Host: localhost\r\n"
LONG = b"a" * 8190


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with gunicorn(log, *LONG_LINGER, CORS_ORIGINS="https://example.org") as running:
        yield running


def get(*headers: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


HOSTED = HOST.strip()
LARGEST = get(HOSTED, *[b"A: " + LONG[:-3]] * 7, b"A: " + LONG[:8152])  # 64 KiB
REFUSED = {
    "no request line": (b"nonsense\r\n", 400, "BAD_REQUEST"),
    "two spaces": (get(HOSTED, line=b"GET  / HTTP/1.1"), 400, "BAD_REQUEST"),
    "no target": (get(HOSTED, line=b"GET HTTP/1.1"), 400, "BAD_REQUEST"),
    "a control character in the target": (get(HOSTED, line=b"GET /\x01 HTTP/1.1"), 400, "BAD_REQUEST"),
    "a method that is none": (get(HOSTED, line=b"g@t / HTTP/1.1"), 400, "BAD_REQUEST"),
    "a lower case method": (get(HOSTED, line=b"get / HTTP/1.1"), 400, "BAD_REQUEST"),
    "HTTP/0.9": (b"GET /\r\n", 400, "BAD_REQUEST"),
    "HTTP/1.2": (get(HOSTED, line=b"GET / HTTP/1.2"), 400, "BAD_REQUEST"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "BAD_REQUEST"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400, "BAD_REQUEST"),
    "bare LF": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400, "BAD_REQUEST"),
    "bare LF in a header": (get(HOSTED, b"A: b\nC: d"), 400, "BAD_REQUEST"),
    "bare CR in a header": (get(HOSTED, b"A: b\rC: d"), 400, "BAD_REQUEST"),
    "NUL in a header": (get(HOSTED, b"A: b\x00"), 400, "BAD_REQUEST"),
    "a folded header": (get(HOSTED, b"A: b", b" c"), 400, "BAD_REQUEST"),
    "a space before the colon": (get(HOSTED, b"Content-Length : 1"), 400, "BAD_REQUEST"),
    "no colon": (get(HOSTED, b"nonsense"), 400, "BAD_REQUEST"),
    "no name": (get(HOSTED, b": value"), 400, "BAD_REQUEST"),
    "no Host": (get(), 400, "BAD_REQUEST"),
    "two Hosts": (get(HOSTED, HOSTED), 400, "BAD_REQUEST"),
    "an empty Host": (get(b"Host:"), 400, "BAD_REQUEST"),
    "a Host that is a path": (get(b"Host: a/b"), 400, "BAD_REQUEST"),
    "a Host with a user": (get(b"Host: a@b"), 400, "BAD_REQUEST"),
    "a Host list": (get(b"Host: a,b"), 400, "BAD_REQUEST"),
    "a Host with dots only": (get(b"Host: .."), 400, "BAD_REQUEST"),
    "a Host that is no IPv6 address": (get(b"Host: [:::]"), 400, "BAD_REQUEST"),
    "a Host that is an IPv4 address in brackets": (get(b"Host: [127.0.0.1]"), 400, "BAD_REQUEST"),
    "a Host with an impossible port": (get(b"Host: a:65536"), 400, "BAD_REQUEST"),
    "an impossible Host in HTTP/1.0": (get(b"Host: a b", line=b"GET / HTTP/1.0"), 400, "BAD_REQUEST"),
    "a target with a user": (get(HOSTED, line=b"GET http://ada@localhost/ HTTP/1.1"), 400, "BAD_REQUEST"),
    "a target with a password": (get(HOSTED, line=b"GET https://a:b@localhost HTTP/1.1"), 400, "BAD_REQUEST"),
    "a target with nothing before the @": (get(HOSTED, line=b"GET http://@localhost/ HTTP/1.1"), 400, "BAD_REQUEST"),
    "a target without a host": (get(HOSTED, line=b"GET http:///healthz HTTP/1.1"), 400, "BAD_REQUEST"),
    "a target with an impossible port": (get(HOSTED, line=b"GET http://a:65536/ HTTP/1.1"), 400, "BAD_REQUEST"),
    "a target with an impossible host": (get(HOSTED, line=b"OPTIONS http://[1::2::3] HTTP/1.1"), 400, "BAD_REQUEST"),
    "another Expect": (get(HOSTED, b"Expect: 200-ok"), 400, "BAD_REQUEST"),
    "chunked": (get(HOSTED, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 411, "LENGTH_REQUIRED"),
    "identity": (get(HOSTED, b"transfer-encoding: identity"), 411, "LENGTH_REQUIRED"),
    "an empty Transfer-Encoding": (get(HOSTED, b"Transfer-Encoding:"), 411, "LENGTH_REQUIRED"),
    "gzip and a length": (get(HOSTED, b"Transfer-Encoding: gzip", b"Content-Length: 5"), 411, "LENGTH_REQUIRED"),
    "chunked in HTTP/1.0": (get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), 411, "LENGTH_REQUIRED"),
    "a negative length": (get(HOSTED, b"Content-Length: -1"), 400, "BAD_REQUEST"),
    "a signed length": (get(HOSTED, b"Content-Length: +1"), 400, "BAD_REQUEST"),
    "an empty length": (get(HOSTED, b"Content-Length:"), 400, "BAD_REQUEST"),
    "a length in other digits": (get(HOSTED, b"Content-Length: \xb2"), 400, "BAD_REQUEST"),
    "two lengths": (get(HOSTED, b"Content-Length: 1", b"Content-Length: 2"), 400, "BAD_REQUEST"),
    "two equal lengths": (get(HOSTED, b"Content-Length: 1", b"Content-Length: 1"), 400, "BAD_REQUEST"),
    "a list of lengths": (get(HOSTED, b"Content-Length: 1, 1"), 400, "BAD_REQUEST"),
    "65,537 bytes": (get(HOSTED, b"Content-Length: 65537", line=b"POST / HTTP/1.1"), 413, "PAYLOAD_TOO_LARGE"),
    "65,537 bytes to GET": (get(HOSTED, b"Content-Length: 65537"), 413, "PAYLOAD_TOO_LARGE"),
    "5,000 digits": (get(HOSTED, b"Content-Length: " + b"9" * 5000), 413, "PAYLOAD_TOO_LARGE"),
    "8,191 bytes of request line": (get(HOSTED, line=b"GET /" + LONG[:-13] + b" HTTP/1.1"), 414, "URI_TOO_LONG"),
    "a request line without end": (b"GET /" + LONG, 414, "URI_TOO_LONG"),
    "101 header lines": (get(HOSTED, *[b"A: b"] * 100), 431, "HEADERS_TOO_LARGE"),
    "101 header lines and no end": (get(HOSTED, *[b"A: b"] * 99)[:-2] + b"A", 431, "HEADERS_TOO_LARGE"),
    "a header of 8,191 bytes": (get(HOSTED, b"A: " + LONG[:-2]), 431, "HEADERS_TOO_LARGE"),
    "a header without end": (get(HOSTED, b"A:" + LONG)[:-4], 431, "HEADERS_TOO_LARGE"),
    "a head of 64 KiB and a byte": (LARGEST[:-4] + b"x\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
    "a head of 64 KiB without end": (LARGEST[:-4] + b"xxxxx", 431, "HEADERS_TOO_LARGE"),
    "five empty lines": (b"\r\n" * 5, 400, "BAD_REQUEST"),
    "empty lines without end": (b"\r\n" * 100_000, 400, "BAD_REQUEST"),
    "two Content-Types": (get(HOSTED, b"Content-Type: a/b", b"Content-Type: a/b"), 400, "BAD_REQUEST"),
}
TAKEN = {
    "8,190 bytes of request line": get(HOSTED, line=b"GET /" + LONG[:-14] + b" HTTP/1.1"),
    "a header line of 8,190 bytes": get(HOSTED, b"A: " + LONG[:-3]),
    "100 header lines": get(HOSTED, *[b"A: b"] * 99),
    "a head of 64 KiB": LARGEST,
    "65,536 bytes": get(HOSTED, b"Content-Length: 65536", line=b"POST / HTTP/1.1") + b"x" * 65_536,
    "a length with leading zeros": get(HOSTED, b"Content-Length: 0003") + b"abc",
    "a Host with a port": get(b"Host: example.org:8000"),
    "an IPv6 Host": get(b"Host: [::1]:8000"),
    "HTTP/1.0 without a Host": get(line=b"GET / HTTP/1.0"),
    "an empty line before": b"\r\n" + get(HOSTED),
    "four empty lines before": b"\r\n" * 4 + get(HOSTED),
    "a header with an underscore, which is dropped": get(HOSTED, b"Content_Length: 7"),
    "an absolute target": get(HOSTED, line=b"GET http://localhost/ HTTP/1.1"),
    "an absolute target with a port": get(HOSTED, line=b"GET HTTP://[::1]:80/ HTTP/1.1"),
    "an @ behind the host": get(HOSTED, line=b"GET http://localhost/a@b?c@d://e@f HTTP/1.1"),
    "a target that looks like an absolute one": get(HOSTED, line=b"GET /http://ada@localhost/ HTTP/1.1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_an_envelope(server: Server, name: str) -> None:
    """The connection ends without a reset, whatever else the client sends."""
    request, status, code = REFUSED[name]
    with server.connect() as client:
        answer = client.send(request).read_answer()
        assert (answer.status, answer.code) == (status, code)
        assert client.ends()


@pytest.mark.parametrize("name", TAKEN)
def test_is_accepted(server: Server, name: str) -> None:
    assert server.ask(TAKEN[name]).status == 200


def test_a_refusal_keeps_the_clients_request_id_if_that_is_valid(server: Server) -> None:
    kept = server.ask(get(b"x-request-id:  abc.DEF_1-2 ", b"Expect: no"))
    assert kept.headers["x-request-id"] == "abc.DEF_1-2"
    replaced = server.ask(get(b'X-Request-ID: abcdefgh"', b"Expect: no"))
    assert replaced.code == "BAD_REQUEST"
    assert len(replaced.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (get(b"Expect: no", b"X-Request-ID: refusal-1"), "refused 127.0.0.1: 400 BAD_REQUEST, GET /"),
        (
            get(HOSTED, b"X-Request-ID: refusal-2", b"Expect: no", line=b"POST /a%22b/c?token=hidden#hidden HTTP/1.1"),
            "refused 127.0.0.1: 400 BAD_REQUEST, POST /a%22b/c",
        ),
        (
            get(b"X-Request-ID: refusal-3", line=b"GET http://ada:hidden@localhost/nowhere?hidden HTTP/1.1"),
            "refused 127.0.0.1: 400 BAD_REQUEST, GET /nowhere",
        ),
        (
            get(HOSTED, b"X-Request-ID: refusal-4", *[b"A: hidden"] * 100, line=b"GET /" + LONG[:300] + b" HTTP/1.1"),
            f"refused 127.0.0.1: 431 HEADERS_TOO_LARGE, GET /{'a' * 199}",
        ),
    ],
)
def test_a_refusal_is_logged_with_method_and_path(server: Server, request_: bytes, line: str) -> None:
    """No query, fragment, user information or header is logged: they may be secret."""
    answer = server.ask(request_)
    wait_until(lambda: answer.headers["x-request-id"] in server.log.read_text())
    [logged] = [
        row for row in map(json.loads, json_lines(server)) if row["requestId"] == answer.headers["x-request-id"]
    ]
    assert (logged["message"], logged["level"]) == (line, "INFO")
    assert "hidden" not in server.log.read_text()


def test_a_refusal_within_a_trace_is_logged_with_its_id(server: Server) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    server.ask(get(HOSTED, b"Expect: no", b"Traceparent: 00-%b-00f067aa0ba902b7-01" % trace.encode()))
    wait_until(lambda: trace in server.log.read_text())
    [logged] = [row for row in map(json.loads, json_lines(server)) if row.get("traceId")]
    assert (logged["traceId"], logged["message"]) == (trace, "refused 127.0.0.1: 400 BAD_REQUEST, GET /")


def test_a_request_that_is_not_whole_in_time_is_logged_too(tmp_path: Path) -> None:
    with gunicorn(tmp_path / "log", REQUEST_TIMEOUT_SECONDS="1") as server:
        with contextlib.ExitStack() as stack:
            with server.stopped():
                client = stack.enter_context(server.connect())
                client.send(get(HOSTED, b"X-Request-ID: refusal-5", line=b"POST /slow?hidden HTTP/1.1")[:-2])
            assert client.read_answer().status == 408
        wait_until(lambda: "refused 127.0.0.1: 408 REQUEST_TIMEOUT, POST /slow" in server.log.read_text())
        assert "hidden" not in server.log.read_text()


@pytest.mark.parametrize(
    "sent", [b"hidden nonsense\r\n", b"GET /hidden HTTP/9\r\n", b"\x16\x03\x01hidden\r\n", b"GET /hi"]
)
def test_bytes_that_are_no_request_line_are_not_logged(server: Server, sent: bytes) -> None:
    """Nor is the beginning of an unfinished request line."""
    with server.connect() as client:
        client.send(sent).stream.shutdown(1)
        answer = client.read_answer()
    wait_until(lambda: answer.headers["x-request-id"] in server.log.read_text())
    [logged] = [
        row for row in map(json.loads, json_lines(server)) if row["requestId"] == answer.headers["x-request-id"]
    ]
    assert logged["message"] == "refused 127.0.0.1: 400 BAD_REQUEST"


def json_lines(server: Server) -> list[str]:
    return [line for line in server.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def test_a_refusal_to_head_has_no_body(server: Server) -> None:
    with server.connect() as client:
        answer = client.send(get(line=b"HEAD / HTTP/1.1")).read_answer(to_head=True)
        assert answer.status == 400
        assert int(answer.headers["content-length"]) > 0
        assert client.ends()


def test_pages_of_known_origins_can_read_a_refusal(server: Server) -> None:
    known = server.ask(get(b"Origin: https://example.org"))
    assert known.headers["access-control-allow-origin"] == "https://example.org"
    assert "X-Request-ID" in known.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in server.ask(get(b"Origin: https://example.com")).headers


@pytest.mark.parametrize("origin", [(), (b"Origin: https://example.org",), (b"Origin: https://example.com",)])
def test_a_refusal_says_that_it_varies_with_the_origin_as_every_answer_does(server: Server, origin: Any) -> None:
    assert server.ask(get(*origin)).headers["vary"] == "Origin"


def test_a_client_that_is_still_sending_gets_its_refusal(server: Server) -> None:
    """Megabytes are on their way. Closing at once would reset the connection and destroy the answer."""
    with server.connect() as client:
        client.send(get(HOSTED, b"Content-Length: 4000000", line=b"POST / HTTP/1.1") + b"x" * 4_000_000)
        assert client.read_answer().code == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (get(HOSTED, b"Content-Length: 10") + b"123", "MALFORMED_JSON"),
        (get(HOSTED)[:-2], "BAD_REQUEST"),
        (b"G", "BAD_REQUEST"),
        (b"\r\n\r", "BAD_REQUEST"),
    ],
)
def test_a_request_that_ends_early_is_refused_at_once(server: Server, sent: bytes, code: str) -> None:
    """The client has closed its sending side and still reads."""
    with server.connect() as client:
        client.send(sent).stream.shutdown(1)
        answer = client.read_answer()
        assert (answer.status, answer.code) == (400, code)


def test_an_application_that_raises_is_a_500_that_tells_nothing(server: Server) -> None:
    """Also for OSError, on which gunicorn would close without an answer. The log has the cause."""
    answer = server.ask(get(HOSTED, line=b"GET /fails HTTP/1.1"))
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert b"secret" not in answer.body
    wait_until(lambda: "secret cause" in server.log.read_text())


@pytest.mark.parametrize("path", [b"/interrupts", b"/short/interrupts"])
def test_an_application_that_raises_keyboard_interrupt_does_not_end_the_worker(server: Server, path: bytes) -> None:
    """Neither in a thread of the pool nor on the worker's own loop."""
    worker = server.workers()
    answer = server.ask(get(HOSTED, line=b"GET %b HTTP/1.1" % path))
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
    assert server.ask(get(HOSTED)).status == 200
    assert server.workers() == worker


def test_an_application_that_fails_in_the_middle_of_its_answer_is_a_500(server: Server) -> None:
    """No byte of the unfinished answer is sent."""
    answer = server.ask(get(HOSTED, b"Content-Length: 3", line=b"GET /fails-late HTTP/1.1") + b"abc")
    assert (answer.status, answer.code) == (500, "INTERNAL_ERROR")
