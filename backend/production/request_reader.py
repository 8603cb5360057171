"""Cuts the bytes of one connection into whole requests (RFC 9112), and refuses those no application should see.

Only framing is read: where the head ends, how long the body is, and the limits. Everything before the body has a
bound: the empty lines in front, each line, the number of lines, the head as a whole. A line leaves the buffer once it
is whole, so that a client that drips costs no more than its bytes.
"""

import ipaddress
import re

from backend.errors import (
    AppError,
    BadRequest,
    HeadersTooLarge,
    LengthRequired,
    MalformedJson,
    PayloadTooLarge,
    UriTooLong,
)
from backend.production.wsgi import WholeRequest

MAX_EMPTY_LINES = 4  # before a request
MAX_LINE = 8190  # bytes of the request line and of each header line, the line end not counted
MAX_HEADERS = 100
MAX_HEAD = 64 * 1024  # bytes from the request line to the empty line that ends the head, all line ends counted
MAX_BODY = 64 * 1024

METHOD = rb"[!$%&'*+.^_`|~0-9A-Z-]{3,20}"  # RFC 9110 has them case-sensitive; none that is registered is otherwise
TARGET = rb"(?:[A-Za-z][A-Za-z0-9+.-]*://|/)[!-~]*"
REQUEST_LINE = re.compile(rb"(?:%b %b|OPTIONS \*) HTTP/1\.[01]" % (METHOD, TARGET))
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
ABSOLUTE = re.compile(rb"[^ ]+ [A-Za-z][A-Za-z0-9+.-]*://([^/?# ]*)")  # a request line whose target names the host
HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)(?::(\d{0,5}))?")


class RequestReader:
    """The bytes of a connection that are not yet a whole request. One thread only."""

    def __init__(self) -> None:
        self.head: list[bytes] = []  # its whole lines so far, the request line first
        self.waits_for_continue = False  # the client holds its body back until it has seen a 100
        self._buffer = bytearray()
        self._empty_lines = 0  # that have come before the request line
        self._head_size = 0  # bytes that `head` had on the wire
        self._headers: dict[bytes, list[bytes]] = {}  # once the head is whole
        self._body_length = -1  # not known until then

    @property
    def begun(self) -> bool:
        """Whether anything of a request has come, be it an empty line in front of it."""
        return bool(self.head or self._buffer or self._empty_lines)

    @property
    def size(self) -> int:
        """Bytes held, about."""
        return len(self._buffer) + self._head_size

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> WholeRequest | None:
        """The next request, or None until it is whole. Raises what it is refused with."""
        if self._body_length < 0 and not self._read_head():
            return None
        if len(self._buffer) < self._body_length:
            return None
        request = WholeRequest(self.head, self._headers, bytes(self._buffer[: self._body_length]))
        del self._buffer[: self._body_length]
        self.head, self._body_length, self.waits_for_continue = [], -1, False
        self._empty_lines = self._head_size = 0
        return request

    def cut_short(self) -> AppError:
        """Why a request that ends here is refused: an application never sees part of one."""
        if self._body_length < 0:
            return BadRequest("The request ended within its head.")
        return MalformedJson("The body is shorter than its Content-Length.")

    def _read_head(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            line = bytes(self._buffer[:end])
            self._check(line)
            del self._buffer[: end + 2]
            if not line and not self.head:  # RFC 9112 §2.2 has us pass over it
                self._empty_lines += 1
                if self._empty_lines > MAX_EMPTY_LINES:
                    raise BadRequest(f"At most {MAX_EMPTY_LINES} empty lines may come before a request.")
                continue
            self._head_size += len(line) + 2
            if line:
                self.head.append(line)
                if len(self.head) == 1 and not REQUEST_LINE.fullmatch(line):
                    raise BadRequest("The request line must be a method, a target and HTTP/1.1.")
            else:
                self._headers = headers_of(self.head)
                self._body_length, self.waits_for_continue = check_framing(self.head[0], self._headers)
                return True
        self._check(bytes(self._buffer.removesuffix(b"\r")))
        return False

    def _check(self, line: bytes) -> None:
        """Raises for a line that is, or can only become, too long, one too many or ended by a bare LF."""
        if len(line) > MAX_LINE:
            raise HeadersTooLarge if self.head else UriTooLong
        if (line and len(self.head) > MAX_HEADERS) or self._head_size + len(line) + 2 > MAX_HEAD:
            raise HeadersTooLarge
        if b"\n" in line:
            raise BadRequest("A line of the head must end with CR LF.")


def headers_of(head: list[bytes]) -> dict[bytes, list[bytes]]:
    """The values by lowercase name. Raises BadRequest."""
    headers: dict[bytes, list[bytes]] = {}
    for line in head[1:]:
        match = HEADER_LINE.fullmatch(line)
        if not match:
            raise BadRequest("A header line must be a name, a colon and a value.")
        headers.setdefault(match[1].lower(), []).append(match[2].strip(b" \t"))
    if len(headers.get(b"content-type", ())) > 1:
        raise BadRequest("Exactly one Content-Type can be meant.")
    return headers


def check_framing(request_line: bytes, headers: dict[bytes, list[bytes]]) -> tuple[int, bool]:
    """The body's length, and whether the client waits for a 100 before sending it. Raises AppError for a bad head."""
    is_1_0 = request_line.endswith(b"0")
    if b"transfer-encoding" in headers:
        raise LengthRequired
    length = content_length(headers.get(b"content-length", []))
    # HTTP/1.0 knows no Host, and health checks of balancers send none; one that is sent must make sense all the same.
    check_host(headers.get(b"host", [b"localhost"] if is_1_0 else []))
    if absolute := ABSOLUTE.match(request_line):
        check_host([absolute[1]])
    expectations = headers.get(b"expect", [])
    if any(value.lower() != b"100-continue" for value in expectations):
        raise BadRequest("No Expect but 100-continue can be met.")
    return length, bool(expectations) and not is_1_0


def content_length(values: list[bytes]) -> int:
    """The one Content-Length, 0 if there is none. Two are refused even if they agree: a proxy may take either."""
    if len(values) > 1 or not all(map(bytes.isdigit, values)):
        raise BadRequest("Content-Length must be one whole number.")
    digits = values[0].lstrip(b"0") if values else b""
    if len(digits) > len(str(MAX_BODY)) or int(digits or b"0") > MAX_BODY:
        raise PayloadTooLarge
    return int(digits or b"0")


def check_host(values: list[bytes]) -> None:
    """Raises BadRequest unless there is exactly one host, a name or an address with or without a port."""
    match = HOST.fullmatch(values[0]) if len(values) == 1 and len(values[0]) <= 260 else None
    if not match or int(match[2] or b"0") > 65_535 or (match[1] and not _is_ipv6(match[1])):
        raise BadRequest("Exactly one Host is needed, a name or an address with or without a port.")


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return True
