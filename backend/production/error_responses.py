"""Answers of the server itself, as bytes: to requests that no application saw, and where an application gave none.

They are the envelope, and they end the connection: nobody knows where the next request would begin.
"""

import logging
import re
import secrets
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

from backend.errors import AppError
from backend.infrastructure.logs import path_of, request_id
from backend.production.request_reader import REQUEST_LINE
from backend.web.cross_origin import EXPOSED
from backend.web.envelope import error_response

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")

log = logging.getLogger("backend.production")


def refusal(
    error: AppError, head: Sequence[bytes], peer: str, origins: frozenset[str], cause: BaseException | None = None
) -> bytes:
    """The whole answer to a request of which the lines in `head` are known (perhaps none). It is logged as well."""
    sent_id = header(head, b"x-request-id")
    identifier = sent_id.decode() if REQUEST_ID.fullmatch(sent_id) else secrets.token_hex(16)
    token = request_id.set(identifier)
    level = logging.ERROR if error.status >= 500 else logging.INFO
    log.log(level, "refused %s: %d %s%s", peer or "unix", error.status, error.code, _what(head), exc_info=cause)
    request_id.reset(token)
    return render(error, head, identifier, origins)


def _what(head: Sequence[bytes]) -> str:
    """Method and path, as far as there is a request line."""
    if not head or not REQUEST_LINE.fullmatch(head[0]):
        return ""
    method, target, _ = head[0].decode().split(" ")
    return f", {method} {path_of(target)}"


def render(error: AppError, head: Sequence[bytes], identifier: str, origins: frozenset[str]) -> bytes:
    response = error_response(error, identifier)
    headers = [
        *response.headers,
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Request-ID", identifier),
    ]
    origin = header(head, b"origin").decode("latin-1")
    if origins:
        headers.append(("Vary", "Origin"))
    if origin in origins:
        headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", EXPOSED)]
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    to_head = bool(head) and head[0].startswith(b"HEAD ")
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if to_head else response.body)


def header(head: Sequence[bytes], name: bytes) -> bytes:
    """The value of the header of that (lowercase) name, or nothing; several lines are joined by a comma."""
    lines = (line.partition(b":") for line in head[1:])
    return b",".join(value.strip(b" \t") for key, _, value in lines if key.lower() == name)
