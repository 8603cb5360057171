"""Logs: the standard library's `logging`, one JSON object a line on standard error.

Modules log as usual: `log = logging.getLogger(__name__)`. `configure` decides once, at the start, where records go and
how they look: as JSON, for a log collector, or as coloured lines on a developer's terminal. Every line has the id of
the request in which it was logged, and the id of its trace if the client or a proxy sent one. The line of a request
itself (`log_request`) is a record of a logger of its own, whose argument is a dict of fields.

Promised: a record is one line without control characters, so nothing that a client sent can control a terminal. JSON
lines are ASCII. Only a traceback on a developer's terminal takes several lines. Not promised: that requests go on when
the log is not read. The thread that logs writes the line itself, and waits while the pipe is full; in production a
queue takes the lines and no request waits (production/log_queue.py).
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime

from backend.infrastructure.timestamps import iso_time

request_id: ContextVar[str] = ContextVar("request_id", default="-")  # for log lines and events, never for decisions
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)  # for log lines

access = logging.getLogger("backend.access")  # the lines of requests
TRACEPARENT = re.compile(  # the second lookahead: version 00 ends after the flags, later ones may go on
    r"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0+-)([0-9a-f]{32})-(?!0+-)[0-9a-f]{16}-[0-9a-f]{2}(-[^,]*)?"
)
PATH_KEPT = 200  # characters: a request's line then fits into PIPE_BUF, even with each character escaped
RED, YELLOW, GREEN, CYAN, DIM = 31, 33, 32, 36, 2  # SGR codes of terminals (ECMA-48)
COLOURS = {"DEBUG": DIM, "INFO": GREEN, "WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED}
STATUS_COLOURS = {2: GREEN, 3: CYAN, 4: YELLOW, 5: RED}  # by first digit


def configure(level: str, development: bool = False) -> None:
    """Send this process's records of `level` and above to standard error.

    Changes nothing if the root logger already has a handler: then an embedding program has configured logs.
    """
    handler = logging.StreamHandler(sys.stderr)
    readable = development and sys.stderr.isatty()
    handler.setFormatter(TerminalFormatter(not os.environ.get("NO_COLOR")) if readable else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def log_request(fields: Mapping[str, object]) -> None:
    """Log the line of a request, at level INFO."""
    access.info("%(method)s %(path)s %(status)d", fields)


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a `traceparent` header (W3C Trace Context, §3.2); None if it is absent, invalid or repeated."""
    match = TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else None


def ids() -> dict[str, str]:
    """The fields of every line that name its request, and its trace if there is one."""
    trace = trace_id.get()
    return {"requestId": request_id.get(), "traceId": trace} if trace else {"requestId": request_id.get()}


class JsonFormatter(logging.Formatter):
    """A record as a JSON object: the fields of a request, or logger and message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"time": iso_time(int(record.created * 1000)), "level": record.levelname}
        if record.name == access.name and isinstance(record.args, dict):
            return json.dumps(line | ids() | record.args)
        line |= {"logger": record.name, **ids(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TerminalFormatter(logging.Formatter):
    """A record as a readable line: time, what happened, ids. A traceback follows on lines of its own."""

    def __init__(self, colour: bool) -> None:
        """`colour=False` leaves out the escape sequences (https://no-color.org)."""
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        time = self._paint(DIM, f"{datetime.fromtimestamp(record.created):%H:%M:%S}")
        fields = record.args if record.name == access.name else None
        text = self._request(fields) if isinstance(fields, dict) else self._message(record)
        lines = [" ".join([time, text, self._paint(DIM, " ".join(ids().values()))])]
        if record.exc_info:
            lines += [printable(line) for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)

    def _request(self, fields: Mapping[str, object]) -> str:
        status = self._paint(STATUS_COLOURS.get(int(str(fields["status"])[0]), RED), fields["status"])
        what = printable(f"{fields['method']} {fields['path']}")
        return f"{status} {what} {fields['ms']} ms {self._paint(DIM, fields['userId'] or 'anonymous')}"

    def _message(self, record: logging.LogRecord) -> str:
        level = self._paint(COLOURS.get(record.levelname, RED), record.levelname)
        return f"{level} {record.name}: {printable(record.getMessage())}"

    def _paint(self, code: int, text: object) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else str(text)


def printable(text: str) -> str:
    """The text with unprintable characters escaped: control characters, line ends, bidirectional overrides."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def path_of(target: str) -> str:
    """The path of a request's target as it was sent, cut to 200 characters.

    Query, fragment and user information are left out: they may hold secrets.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:  # the absolute form, RFC 9112 §3.2.2
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path[:PATH_KEPT]
