"""The bounds on what a connection may send: empty lines, lines, the head, the body."""

import pytest

from backend.errors import AppError, BadRequest, HeadersTooLarge, UriTooLong
from backend.production.request_reader import RequestReader
from backend.production.wsgi import WholeRequest

HOST = b"Host: localhost"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n\r\n"
HEAD_BYTES = 64 * 1024
SEGMENTS = [1, 7, 1000, 10**6]  # bytes


def read(data: bytes, segment: int = 10**6) -> list[WholeRequest]:
    """The requests in `data`, fed in pieces of `segment` bytes. Raises AppError for the first that is refused."""
    reader, requests = RequestReader(), []
    for start in range(0, len(data), segment):
        reader.feed(data[start : start + segment])
        while request := reader.take():
            requests.append(request)
    return requests


def head_of(size: int, target: bytes = b"/", end: bytes = b"\r\n") -> bytes:
    """A head of exactly `size` bytes, line ends included; each header line is short enough."""
    lines = [b"GET " + target + b" HTTP/1.1\r\n", HOST + b"\r\n"]
    missing = size - sum(map(len, lines)) - len(end)
    while missing > 0:
        length = missing if missing <= 8192 else min(8192, missing - 100)
        lines.append(b"A: ".ljust(length - 2, b"x") + b"\r\n")
        missing -= length
    return b"".join([*lines, end])


@pytest.mark.parametrize("segment", SEGMENTS)
def test_up_to_four_empty_lines_before_a_request_are_ignored(segment: int) -> None:
    """RFC 9112 §2.2. Each request of a connection may have four."""
    assert len(read(b"\r\n" * 4 + GET + b"\r\n" * 4 + GET + GET, segment)) == 3


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("before", [b"", GET])
def test_a_fifth_empty_line_is_refused(before: bytes, segment: int) -> None:
    """At once, whether or not a request follows."""
    for sent in (b"\r\n" * 5, b"\r\n" * 5 + GET, b"\r\n" * 100_000):
        with pytest.raises(BadRequest, match="empty lines"):
            read(before + sent, segment)


def test_a_request_has_begun_with_its_first_byte_even_of_an_empty_line() -> None:
    reader = RequestReader()
    for sent in (b"\r", b"\n", b"\r\n", b"G", b"ET / HTTP/1.1\r\n", HOST, b"\r\n\r"):
        reader.feed(sent)
        assert reader.take() is None
        assert reader.begun
    reader.feed(b"\n")
    assert reader.take() is not None
    assert not reader.begun


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("target", [b"/", b"/".ljust(8000, b"a")])
def test_a_head_of_64_kib_is_accepted(target: bytes, segment: int) -> None:
    """All of its bytes count, line ends included. Bytes before and after the head do not."""
    head = head_of(HEAD_BYTES, target)
    assert len(head) == HEAD_BYTES
    for sent in (head + head, b"\r\n" * 4 + head + GET):
        assert len(read(sent, segment)) == 2


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("target", [b"/", b"/".ljust(8000, b"a")])
def test_a_head_of_one_byte_more_is_refused(target: bytes, segment: int) -> None:
    with pytest.raises(HeadersTooLarge, match="64 KiB"):
        read(head_of(HEAD_BYTES + 1, target), segment)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_head_that_can_only_become_too_large_is_refused_before_its_end(segment: int) -> None:
    """The last line has no end. Without a bound on the head, the reader would wait for the rest of it."""
    assert read(head_of(HEAD_BYTES - 4, end=b"A"), segment) == []
    with pytest.raises(HeadersTooLarge):
        read(head_of(HEAD_BYTES + 1, end=b"A"), segment)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"GET /".ljust(8191, b"a"), UriTooLong),
        (b"GET /".ljust(8191 - 9, b"a") + b" HTTP/1.1\r\n", UriTooLong),
        (b"GET / HTTP/1.1\r\n" + b"A:".ljust(8191, b"a"), HeadersTooLarge),
        (b"GET / HTTP/1.1\r\n" + b"A:b\r\n" * 100 + b"A", HeadersTooLarge),
    ],
)
@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_line_that_is_too_long_or_one_too_many_is_refused_before_its_end(
    sent: bytes, error: type[AppError], segment: int
) -> None:
    read(sent[:-3], segment)
    with pytest.raises(error):
        read(sent, segment)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_the_size_is_the_number_of_bytes_received_of_a_request(segment: int) -> None:
    """The limit on the bytes held for all clients adds these sizes up."""
    reader = RequestReader()
    sent = head_of(60_000, end=b"Content-Length: 9\r\n\r\n") + b"12345678"
    for start in range(0, len(sent), segment):
        reader.feed(sent[start : start + segment])
        assert reader.take() is None
        assert reader.size == min(start + segment, len(sent))
    reader.feed(b"9")
    assert reader.take() is not None
    assert reader.size == 0


def test_two_content_type_lines_are_refused() -> None:
    """Joined by a comma, they could be read as either."""
    lines = b"Content-Type: application/json\r\ncontent-type: application/json\r\n"
    with pytest.raises(BadRequest, match="Content-Type"):
        read(b"POST / HTTP/1.1\r\n" + HOST + b"\r\n" + lines + b"\r\n")


@pytest.mark.parametrize("segment", SEGMENTS)
def test_a_body_ends_where_its_length_says_whatever_its_bytes_are(segment: int) -> None:
    """A body `M` left in the buffer would go unnoticed: `MPOST` is a valid method. `x yPOST` is not."""
    bodies = [b"x y", b"\r\n\r\n", GET, b"GET ", b"M", b"", b"x y" * 20_000]
    posts = [b"POST / HTTP/1.1\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (HOST, len(body), body) for body in bodies]
    requests = read(b"".join(posts), segment)
    assert [request.body for request in requests] == bodies
    assert {request.head[0] for request in requests} == {b"POST / HTTP/1.1"}
