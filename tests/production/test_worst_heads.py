"""No header costs much more to parse than any other bytes of the same length.

A head is parsed on the thread that serves all clients. These tests fill each header, up to the largest head that is
taken, with the input that is hardest for its parser. To read and answer the request must cost about as much CPU as with
a head of the same size that means nothing.
"""

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.production.request_reader import RequestReader
from backend.production.wsgi import answer
from backend.settings import Networks

JSON = b"application/json"
PROXY = ("10.0.0.1", 50_000)
TIMES_AS_MUCH = 4
OWN, CHANGE, HEALTH, LIST = b"GET /api/v1/users/%b", b"PATCH /api/v1/users/%b", b"GET /healthz", b"GET /api/v1/products"
IGNORED = (b"Accept", b"Cookie", b"Origin", b"X-Request-ID", b"Idempotency-Key", b"User-Agent", b"Content-Encoding")
# The header of a token is parsed before its signature is checked. This one has an array of arrays.
ARRAYS = (
    base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"x","a":[%b0]}' % (b"[]," * 13_000)).rstrip(b"=") + b".e30.AAAA"
)


def lines_of(name: bytes, unit: bytes, count: int = 7, start: bytes = b"") -> list[bytes]:
    """`count` header lines of the greatest length: the name, `start`, and `unit` repeated."""
    field = name + b": " + start
    return [field + unit * ((8190 - len(field)) // len(unit))] * count


def cases() -> Iterator[tuple[str, bytes, list[bytes]]]:
    """The test's name, a request line without its version, and the header lines."""
    for line, name, units, count in (
        (OWN, b"If-None-Match", [b",", b'"",', b'"1",', b'W/"1",', b'"1" ,', b'"', b"1,"], 7),
        (CHANGE, b"If-Match", [b",", b'"",', b'"1",', b'W/"1",', b'"1" ,', b'"', b"1,"], 7),
        (CHANGE, b"If-None-Match", [b",", b'"",', b'"1",', b'W/"1",', b'"1" ,', b'"', b"1,"], 7),
        (HEALTH, b"Connection", [b",", b"a,", b"close ,", b" ,"], 7),
        (HEALTH, b"X-Forwarded-For", [b",", b"10.0.0.1,", b":", b"1"], 7),
        (LIST, b"Authorization", [b"Bearer a.", b"."], 7),
        (CHANGE, b"Content-Type", [b";", b";a=b", b';a="\\"', b";a*0=b", b";charset=utf-8"], 1),
    ):
        start = JSON if name == b"Content-Type" else b""
        for unit in units:
            lines = lines_of(name, unit, count, start)
            yield f"{line.split()[0].decode()} {name.decode()} {unit.decode()}", line, lines
    for name in IGNORED:
        yield name.decode(), HEALTH, lines_of(name, b"a=b; ,")
    parts = [ARRAYS[start : start + 6000] for start in range(0, len(ARRAYS), 6000)]
    yield "a token", LIST, [b"Authorization: Bearer " + parts[0], *(b"Authorization: " + part for part in parts[1:])]
    for what, parameters in {
        "ampersands": b"&" * 8000,
        "one name": b"a&" * 4000,
        "many names": b"&".join(b"a%x" % number for number in range(1600)),
        "blanks": b"cursor=" + b"+" * 8000,
        "percent signs": b"cursor=" + b"%41" * 2600,
    }.items():
        yield f"a query of {what}", LIST + b"?" + parameters, []
    yield "a path of slashes", b"GET " + b"/" * 8000, []
    yield "a path of percent signs", b"GET /" + b"%2F" * 2600, []


@pytest.fixture
def cost(make_api: Any) -> Callable[[bytes, list[bytes]], float]:
    """Seconds of CPU for a request: the least of ten measurements, since other work on the machine only adds."""
    api = make_api(trusted_proxies=Networks("10.0.0.0/8"), cors_origins=frozenset({"https://example.org"}))
    ada = api.sign_up("Ada")
    known = f"Authorization: {ada.headers['Authorization']}".encode()

    def once(head: bytes) -> float:
        began = time.thread_time()
        reader = RequestReader()
        reader.feed(head)
        request = reader.take()
        assert request is not None
        answer(api.app, request, PROXY, PROXY, request.keeps_connection)
        return time.thread_time() - began

    def least(line: bytes, lines: list[bytes]) -> float:
        sent = [line.replace(b"%b", ada.id.encode()) + b" HTTP/1.1", b"Host: a", *lines]
        if b"%b" in line:
            sent.append(known)
        if line == CHANGE:
            sent += [
                b"Content-Length: 2",
                *([] if lines[0].startswith(b"Content-Type") else [b"Content-Type: " + JSON]),
            ]
        return min(once(b"\r\n".join([*sent, b"", b"{}" if line == CHANGE else b""])) for _ in range(10))

    return least


@pytest.mark.parametrize(("line", "lines"), [pytest.param(*rest, id=name) for name, *rest in cases()])
def test_costs_about_as_much_as_any_other(
    cost: Callable[[bytes, list[bytes]], float], line: bytes, lines: list[bytes]
) -> None:
    spent, ordinary = cost(line, lines), cost(HEALTH, lines_of(b"X-Padding", b"x"))
    print(f"{spent * 1000:.3f} ms; a head of the largest size, {ordinary * 1000:.3f} ms")
    assert spent < TIMES_AS_MUCH * ordinary
