"""The server's own answers, as bytes: to requests that the application does not see, and when the application fails.

Gunicorn sends pages of HTML. These are the envelope, with the headers that the middleware adds to every answer. They
end the connection, since it is not known where the next request would begin.
"""

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Sequence

from backend.errors import AppError
from backend.infrastructure.logs import path_of, request_id, trace_id, trace_id_of
from backend.production.request_reader import REQUEST_LINE
from backend.production.wsgi import render
from backend.web.cross_origin import EXPOSED
from backend.web.request import REQUEST_ID
from backend.web.response import STATUS_LINES, error_response

refused: Counter[int] = Counter()  # how many answers this process has made here, by status
_lock = threading.Lock()  # guards it

log = logging.getLogger("backend.production")


def refusal(
    error: AppError, head: Sequence[bytes], peer: str, origins: frozenset[str], cause: BaseException | None = None
) -> bytes:
    """The whole answer to a request of which the lines in `head` (perhaps none) are known. Also logs a line.

    `peer` is the client's address, `origins` those of CORS, `cause` the exception whose traceback the log gets.
    """
    with _lock:
        refused[error.status] += 1
    sent_id = header(head, b"x-request-id").decode("latin-1")
    identifier = sent_id if REQUEST_ID.fullmatch(sent_id) else secrets.token_hex(16)
    ids = request_id.set(identifier), trace_id.set(trace_id_of(header(head, b"traceparent").decode("latin-1")))
    level = logging.ERROR if error.status >= 500 else logging.INFO
    log.log(level, "refused %s: %d %s%s", peer or "unix", error.status, error.code, _asked(head), exc_info=cause)
    request_id.reset(ids[0])
    trace_id.reset(ids[1])
    return b"".join(_answer(error, head, identifier, origins))


def _asked(head: Sequence[bytes]) -> str:
    """Method and path, if there is a request line."""
    if not head or not REQUEST_LINE.fullmatch(head[0]):
        return ""
    method, target, _ = head[0].decode().split(" ")
    return f", {method} {path_of(target)}"


def _answer(error: AppError, head: Sequence[bytes], identifier: str, origins: frozenset[str]) -> list[bytes]:
    response = error_response(error, identifier)
    headers = [*response.all_headers(), ("X-Request-ID", identifier)]
    origin = header(head, b"origin").decode("latin-1")
    if origins:
        headers.append(("Vary", "Origin"))
    if origin in origins:
        headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", EXPOSED)]
    to_head = bool(head) and head[0].startswith(b"HEAD ")
    return render(STATUS_LINES[error.status], headers, response.body, keep=False, to_head=to_head)


def header(head: Sequence[bytes], name: bytes) -> bytes:
    """The value of the header of this (lowercase) name, or b""; several lines are joined by a comma."""
    lines = (line.partition(b":") for line in head[1:])
    return b",".join(value.strip(b" \t") for key, _, value in lines if key.lower() == name)
