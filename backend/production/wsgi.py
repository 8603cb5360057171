"""Passes a whole request to a WSGI application (PEP 3333), and renders its answer as bytes.

Gunicorn's own parser and writer take 130 µs of CPU for a request, even with its C parser. This module and
`request_reader.py` take 50.

Promised: an answer is complete before its first byte is sent, so an application may fail at any point and the client
still gets a whole 500. `request_reader.py` has checked the request: none is refused here. Not promised: streaming.
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
COPIED = 64 * 1024  # largest body, in bytes, that is copied behind its head
MAX_OPTIONS = 100  # that are read of the Connection header
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
    """`head` has the lines before the body, `headers` their values by lowercase name."""

    head: Sequence[bytes]
    headers: Mapping[bytes, Sequence[bytes]]
    body: bytes

    @property
    def keeps_connection(self) -> bool:
        """Whether the client may send another request (RFC 9112 §9.3). Bytes after a CONNECT would not be one.

        At most 100 connection options are read. If there are more, the connection is closed, which is always allowed.
        """
        value = b",".join(self.headers.get(b"connection", ())).lower()
        options = [option.strip() for option in value.split(b",", MAX_OPTIONS)]
        if b"close" in options or len(options) > MAX_OPTIONS or self.head[0].startswith(b"CONNECT "):
            return False
        return self.head[0].endswith(b"1") or b"keep-alive" in options


def answer(application: Application, request: WholeRequest, client: Any, server: Any, keep: bool) -> list[bytes]:
    """The application's answer, in one piece or two; `client` and `server` are the addresses of the socket's ends.

    Raises the application's exceptions, and ValueError for headers that are invalid or contradict the body.
    """
    environ = environ_of(request, client, server)
    started: list[tuple[str, Headers]] = []
    parts = application(environ, lambda status, headers, *_: started.append((status, headers)))
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    status, headers = started[-1]
    return render(status, headers, body, keep, environ["REQUEST_METHOD"] == "HEAD")


def path_and_query(target: str) -> tuple[str, str]:
    """Path and query of a request's target, which may be in absolute form. The path is as sent."""
    path, _, query = SCHEME_AND_HOST.sub("", target, 1).partition("#")[0].partition("?")
    return path, query


def path_info(path: str) -> str:
    """PATH_INFO (PEP 3333) for the path of a target. A path of 8,000 percent signs takes milliseconds."""
    return unquote_to_bytes(path).decode("latin-1") if "%" in path else path


def environ_of(request: WholeRequest, client: Any, server: Any) -> dict[str, Any]:
    """The CGI variables (RFC 3875) and those of WSGI.

    A header whose name has an underscore is left out: its variable would be that of the name with a dash.
    """
    method, target, protocol = request.head[0].decode().split(" ")
    path, query = path_and_query(target)
    environ = {
        **FIXED,
        "wsgi.input": io.BytesIO(request.body),
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "PATH_INFO": path_info(path),
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


def render(status: str, headers: Headers, body: bytes, keep: bool, to_head: bool) -> list[bytes]:
    """The bytes of an answer. Raises ValueError for control characters in a header, or a wrong Content-Length.

    A small body is copied behind its head: one piece takes one system call. A large body is not: copying 5 MB for each
    of 200 clients would stop the loop for 0.3 s.
    """
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
    return [head + body] if len(body) <= COPIED else [head, body]


@lru_cache(1024)
def _variable(name: bytes) -> str:
    """The name of a header's variable (RFC 3875 §4.1)."""
    variable = name.decode().upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}"


@lru_cache(2)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
