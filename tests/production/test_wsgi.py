"""How a request reaches the application, and an answer the client."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import AppError
from backend.production.request_reader import RequestReader
from backend.production.wsgi import WholeRequest, answer, environ_of

CLIENT, SERVER = ("192.0.2.7", 50_000), ("127.0.0.1", 8000)
HOST = b"Host: localhost"
BODY = b"x" * 10_000  # more than any length in `values`
GET = b"GET / HTTP/1.1"

methods = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"CONNECT", b"get", b"M-SEARCH", b"GO", b"A" * 21, b"G#T"])
targets = st.one_of(
    st.sampled_from(
        [
            b"*",
            b"/",
            b"//a//b",
            b"/a?b#c?d",
            b"/a?b=http://h/p",
            b"//http://h/p",
            b"/%2F%c3%a9%zz%",
            b"http://h:1/p?q",
            b"http://h",
            b"a:1",
            b"?",
        ]
    ),
    st.text("/?#%:.ab2F*", min_size=1, max_size=12).map(lambda text: b"/" + text.encode()),
)
names = st.sampled_from(
    [b"A", b"a", b"X-A", b"X_A", b"Content-Type", b"Content-Length", b"Connection", b"a b", b"", b"\xe9"]
)
values = st.one_of(st.sampled_from([b"", b"0", b"2", b" b ", b"a,b", b"\xc3\xa9"]), st.binary(max_size=4))
heads = st.builds(
    lambda method, target, version, lines: b"\r\n".join([b" ".join([method, target, version]), HOST, *lines, b"", b""]),
    methods, targets, st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]),
    st.lists(st.tuples(names, values).map(b":".join), max_size=4),
)  # fmt: skip


def taken(data: bytes) -> WholeRequest | None:
    reader = RequestReader()
    reader.feed(data)
    return reader.take()


def gunicorns(data: bytes) -> dict[str, Any]:
    """The environ that gunicorn's own parser makes, configured to the same rules."""
    config = Config()
    for name, value in {"header_map": "drop", "forwarder_headers": "", "forwarded_allow_ips": ""}.items():
        config.set(name, value)
    request = next(RequestParser(config, [data], CLIENT))
    _, environ = wsgi.create(request, None, CLIENT, SERVER, config)
    keep = not request.should_close() and request.method != "CONNECT"  # which gunicorn 26 keeps open
    return {**environ, "keep": keep, "wsgi.input": environ["wsgi.input"].read()}


@given(heads)
def test_gunicorn_reads_an_accepted_request_the_same_way(head: bytes) -> None:
    """The two independent parsers agree, and a request that gunicorn refuses is refused here too."""
    try:
        request = taken(head + BODY)
    except AppError:
        return
    assert request is not None
    theirs = gunicorns(head + BODY)
    ours = {**environ_of(request, CLIENT, SERVER), "wsgi.input": request.body, "keep": request.keeps_connection}
    own = {"wsgi.errors", "wsgi.multithread", "wsgi.multiprocess", "SERVER_ADDR"}
    assert {name: value for name, value in ours.items() if name not in own} == {
        name: value for name, value in theirs.items() if name in ours.keys() - own or name.startswith("HTTP_")
    }


@given(heads)
def test_a_request_that_gunicorn_accepts_is_accepted(head: bytes) -> None:
    """RFC 9112 allows a server to refuse the exceptions: CONNECT, transfer codings, and large bodies."""
    try:
        gunicorns(head + BODY)
    except ParseException:
        return
    try:
        assert taken(head + BODY) is not None
    except AppError as error:
        assert head.startswith(b"CONNECT ") or error.status in (411, 413), head


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        ([GET], True),
        ([GET, b"Connection: close"], False),
        ([b"CONNECT / HTTP/1.1"], False),
        ([GET, b"Connection: upgrade, CLOSE"], False),
        ([GET, b"Connection: a", b"Connection: close"], False),
        ([GET, b"Connection: " + b"a," * 99 + b"a"], True),
        ([GET, b"Connection: " + b"a," * 99 + b"close"], False),
        ([GET, b"Connection: " + b"a," * 100 + b"a"], False),  # the option that is not read could be a `close`
        ([GET, b"Connection: " + b"," * 4000, b"Connection: close"], False),
        ([GET[:-1] + b"0"], False),
        ([GET[:-1] + b"0", b"Connection: Keep-Alive"], True),
        ([GET[:-1] + b"0", b"Connection: keep-alive, close"], False),
    ],
)
def test_a_connection_is_kept_if_its_client_wants_it(lines: list[bytes], keeps: bool) -> None:
    request = taken(b"\r\n".join([*lines, HOST, b"", b""]))
    assert request is not None
    assert request.keeps_connection == keeps


Parts = Iterable[bytes]


def answered(status: str, headers: list[tuple[str, str]], parts: Parts, method: bytes = b"GET") -> bytes:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Parts:
        start_response(status, headers)
        return parts

    request = taken(method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert request is not None
    return b"".join(answer(application, request, CLIENT, SERVER, keep=True))


def test_an_answer_is_its_status_its_headers_and_its_body() -> None:
    head, _, body = answered("201 Created", [("ETag", '"1"')], [b"ab", b"c"]).partition(b"\r\n\r\n")
    status, date, *headers = head.split(b"\r\n")
    assert (status, body) == (b"HTTP/1.1 201 Created", b"abc")
    assert date.startswith(b"Date: ")
    assert date.endswith(b" GMT")
    assert headers == [b"Connection: keep-alive", b'ETag: "1"', b"Content-Length: 3"]


@pytest.mark.parametrize(
    ("status", "method"), [("204 No Content", b"GET"), ("304 Not Modified", b"GET"), ("200 OK", b"HEAD")]
)
def test_an_answer_that_must_not_have_a_body_has_none(status: str, method: bytes) -> None:
    assert answered(status, [], [b"abc"], method).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [[("Location", "/a\r\nSet-Cookie: b")], [("A", "b\nc")], [("A", "b\0")], [("A", "b\r")], [("Content-Length", "2")]],
)
def test_an_answer_with_control_characters_or_a_wrong_length_is_an_error(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="the answer"):
        answered("200 OK", headers, [b"abc"])


def test_the_last_start_of_an_answer_counts() -> None:
    """An application that fails before its first part may start another answer (PEP 3333)."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Parts:
        start_response("200 OK", [])
        start_response("500 Internal Server Error", [("A", "b")], (OSError, OSError(), None))
        return [b"sorry"]

    request = taken(GET + b"\r\n" + HOST + b"\r\n\r\n")
    assert request is not None
    sent = b"".join(answer(application, request, CLIENT, SERVER, keep=True))
    assert sent.startswith(b"HTTP/1.1 500 ") and b"A: b\r\n" in sent


class Closable:
    """The parts of an answer; counts the calls of `close` (PEP 3333)."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed += 1


def test_an_answer_is_closed_once_whether_it_is_whole_or_fails_half_way() -> None:
    whole, half = Closable(b"a", b"b"), Closable(b"a", OSError("on purpose"))
    assert answered("200 OK", [], whole).endswith(b"ab")
    with pytest.raises(OSError, match="on purpose"):
        answered("200 OK", [], half)
    assert (whole.closed, half.closed) == (1, 1)


@pytest.mark.parametrize(
    ("server", "name", "port"),
    [(SERVER, "127.0.0.1", "8000"), (("::1", 8000, 0, 0), "::1", "8000"), ("/run/app.sock", "localhost", "80")],
)
def test_an_application_is_told_where_it_is_served(server: Any, name: str, port: str) -> None:
    """Also over a unix socket: WSGI requires a name and a port."""
    request = taken(GET + b"\r\nHost: elsewhere\r\n\r\n")
    assert request is not None
    environ = environ_of(request, CLIENT, server)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
