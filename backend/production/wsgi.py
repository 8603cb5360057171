"""A whole request as WSGI has it (PEP 3333), and what the application makes of it as the bytes of an answer.

`request_reader.py` has judged the request: nothing here refuses one. An answer is put together whole before any of it
goes out, so an application that fails, wherever it does, has not yet answered.
"""

import io
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

Headers = Sequence[tuple[str, str]]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

SCHEME_AND_HOST = re.compile(r"\A[^/?:]+://[^/?#]*")  # of a target in absolute form, RFC 9112 §3.2.2
COPIED = 64 * 1024  # bytes of a body
MAX_OPTIONS = 100  # of a connection
FIXED = {
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "SCRIPT_NAME": "",
}


class WholeRequest(NamedTuple):
    """`head` has its lines, `headers` their values by lowercase name."""

    head: Sequence[bytes]
    headers: Mapping[bytes, Sequence[bytes]]
    body: bytes

    @property
    def keeps_connection(self) -> bool:
        """Whether the client means to send another one (RFC 9112 §9.3); after CONNECT it would be no request.

        A list of connection options without end is not read to its end: to close is always right.
        """
        value = b",".join(self.headers.get(b"connection", ())).lower()
        options = [option.strip() for option in value.split(b",", MAX_OPTIONS)]
        if b"close" in options or len(options) > MAX_OPTIONS or self.head[0].startswith(b"CONNECT "):
            return False
        return self.head[0].endswith(b"1") or b"keep-alive" in options


def answer(application: Application, request: WholeRequest, client: Any, server: Any, keep: bool) -> list[bytes]:
    """What the application answers, in one piece or two; `client` and `server` are the socket's two ends."""
    environ = environ_of(request, client, server)
    started: list[tuple[str, Headers]] = []
    parts = application(environ, lambda status, headers, *_: started.append((status, headers)))
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    status, headers = started[-1]
    return _rendered(status, headers, body, keep, environ["REQUEST_METHOD"] == "HEAD")


def environ_of(request: WholeRequest, client: Any, server: Any) -> dict[str, Any]:
    """The CGI variables (RFC 3875) and WSGI's own. Header names with an underscore are not told from those with a dash
    then, so they are left out."""
    method, target, protocol = request.head[0].decode().split(" ")
    path, _, query = SCHEME_AND_HOST.sub("", target, 1).partition("#")[0].partition("?")
    environ = {
        **FIXED,
        "wsgi.input": io.BytesIO(request.body),
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": protocol,
    }
    for name, values in request.headers.items():
        if b"_" not in name:
            environ[_variable(name)] = b",".join(values).decode("latin-1")
    for prefix, address in (("REMOTE", client), ("SERVER", server)):
        if isinstance(address, tuple):
            environ[f"{prefix}_ADDR"], environ[f"{prefix}_PORT"] = address[0], str(address[1])
    environ["SERVER_NAME"] = environ.setdefault("SERVER_ADDR", "localhost")  # of a unix socket
    environ.setdefault("SERVER_PORT", "80")
    return environ


@lru_cache(1024)
def _variable(name: bytes) -> str:
    variable = name.decode().upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


def _rendered(status: str, headers: Headers, body: bytes, keep: bool, to_head: bool) -> list[bytes]:
    """Raises ValueError for what would not be one answer: line ends in a header, another length than announced."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Date: {_date(int(time.time()))}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    if not "".join(lines).isprintable():
        raise ValueError("a header of the answer has control characters")
    if status[:3] in ("204", "304") or to_head:
        body = b""
    else:
        announced = [value for name, value in headers if name.lower() == "content-length"]
        if announced not in ([], [str(len(body))]):
            raise ValueError("the answer has another length than it announces")
        lines += [] if announced else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    # One piece is one send; but to copy 5 MB for 200 clients, and to find memory for it, holds all others up for 0.3 s.
    return [head + body] if len(body) <= COPIED else [head, body]


@lru_cache(2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
