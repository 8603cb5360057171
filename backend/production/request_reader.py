"""Cuts the bytes of a connection into whole requests (RFC 9112), and refuses malformed and ambiguous ones.

Plain gthread parses in the thread that reads, and sends pages of HTML where the API promises its envelope. It also
accepts requests that two parsers may read differently. Here Transfer-Encoding, a repeated Content-Length or Host, a
bare line feed and a folded header are refused, so a proxy and this server agree on where a request ends.

Promised: the empty lines before a request, each line, the number of lines, the whole head and the body are bounded. A
line leaves the buffer once it is whole, so a client that sends byte by byte does not cause the head to be scanned again
from its start. Not promised: that the values of headers and body make sense; the application checks them.
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
from backend.web.request import MAX_BODY

MAX_EMPTY_LINES = 4  # before a request
MAX_LINE = 8190  # bytes of the request line and of each header line, without the line end
MAX_HEADERS = 100
MAX_HEAD = 64 * 1024  # bytes from the request line to the empty line that ends the head, with all line ends

METHOD = rb"[!$%&'*+.^_`|~0-9A-Z-]{3,20}"  # case-sensitive (RFC 9110), and every registered one is in upper case
TARGET = rb"(?:[A-Za-z][A-Za-z0-9+.-]*://|/)[!-~]*"
REQUEST_LINE = re.compile(rb"(?:%b %b|OPTIONS \*) HTTP/1\.[01]" % (METHOD, TARGET))
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
ABSOLUTE = re.compile(rb"[^ ]+ [A-Za-z][A-Za-z0-9+.-]*://([^/?# ]*)")  # a request line with a target in absolute form
HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)(?::(\d{0,5}))?")


class RequestReader:
    """The bytes of a connection that are not yet a whole request. One thread at a time."""

    def __init__(self) -> None:
        self.head: list[bytes] = []  # the whole lines so far, the request line first
        self.waits_for_continue = False  # the client sends its body only after a 100
        self._buffer = bytearray()
        self._empty_lines = 0  # before the request line
        self._head_size = 0  # bytes that `head` had on the wire
        self._headers: dict[bytes, list[bytes]] = {}  # filled when the head is whole
        self._body_length = -1  # -1 until the head is whole

    @property
    def begun(self) -> bool:
        """Whether any byte of a request has come, or of an empty line before it."""
        return bool(self.head or self._buffer or self._empty_lines)

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return len(self._buffer) + self._head_size

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> WholeRequest | None:
        """The next request, or None until it is whole. Raises AppError to refuse it."""
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
        """The refusal of a request whose client has closed its side too early."""
        if self._body_length < 0:
            return BadRequest("The request ended within its head.")
        return MalformedJson("The body is shorter than its Content-Length.")

    def _read_head(self) -> bool:
        """Move whole lines from the buffer to the head. True once the head is whole. Raises AppError."""
        while (end := self._buffer.find(b"\r\n")) >= 0:
            line = bytes(self._buffer[:end])
            self._check(line)
            del self._buffer[: end + 2]
            if not line and not self.head:
                self._skip_empty_line()
                continue
            self._head_size += len(line) + 2
            if not line:
                self._headers = headers_of(self.head)
                self._body_length, self.waits_for_continue = check_framing(self.head[0], self._headers)
                return True
            self.head.append(line)
            if len(self.head) == 1 and not REQUEST_LINE.fullmatch(line):
                raise BadRequest("The request line must be a method, a target and HTTP/1.1.")
        self._check(bytes(self._buffer.removesuffix(b"\r")))
        return False

    def _skip_empty_line(self) -> None:
        """Ignore a few before a request (RFC 9112 §2.2). Raises BadRequest."""
        self._empty_lines += 1
        if self._empty_lines > MAX_EMPTY_LINES:
            raise BadRequest(f"At most {MAX_EMPTY_LINES} empty lines may come before a request.")

    def _check(self, line: bytes) -> None:
        """Raises AppError for a line, whole or not, that is too long, beyond the limits, or has a bare line feed."""
        if len(line) > MAX_LINE:
            raise HeadersTooLarge if self.head else UriTooLong
        if (line and len(self.head) > MAX_HEADERS) or self._head_size + len(line) + 2 > MAX_HEAD:
            raise HeadersTooLarge
        if b"\n" in line:
            raise BadRequest("A line of the head must end with CR LF.")


def headers_of(head: list[bytes]) -> dict[bytes, list[bytes]]:
    """The header values by lowercase name. Raises BadRequest."""
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
    """The body's length, and whether the client waits for a 100 before it sends the body. Raises AppError."""
    is_1_0 = request_line.endswith(b"0")
    if b"transfer-encoding" in headers:
        raise LengthRequired
    length = content_length(headers.get(b"content-length", []))
    # HTTP/1.0 has no Host, and health checks of load balancers send none. One that is sent must be valid.
    check_host(headers.get(b"host", [b"localhost"] if is_1_0 else []))
    if absolute := ABSOLUTE.match(request_line):
        check_host([absolute[1]])
    expectations = headers.get(b"expect", [])
    if any(value.lower() != b"100-continue" for value in expectations):
        raise BadRequest("No Expect but 100-continue can be met.")
    return length, bool(expectations) and not is_1_0


def content_length(values: list[bytes]) -> int:
    """The one Content-Length, 0 if there is none. Two are refused even if they agree: a proxy may use either.

    Raises BadRequest and PayloadTooLarge.
    """
    if len(values) > 1 or not all(map(bytes.isdigit, values)):
        raise BadRequest("Content-Length must be one whole number.")
    digits = values[0].lstrip(b"0") if values else b""
    if len(digits) > len(str(MAX_BODY)) or int(digits or b"0") > MAX_BODY:
        raise PayloadTooLarge
    return int(digits or b"0")


def check_host(values: list[bytes]) -> None:
    """Raises BadRequest unless there is exactly one host: a name or an address, with or without a port."""
    match = HOST.fullmatch(values[0]) if len(values) == 1 and len(values[0]) <= 260 else None
    if not match or int(match[2] or b"0") > 65_535 or (match[1] and not _is_ipv6(match[1])):
        raise BadRequest("Exactly one Host is needed, a name or an address with or without a port.")


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return True
