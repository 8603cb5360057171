"""Logs: one JSON object a line, written by a thread of its own.

Whoever logs only appends to a bounded queue, so a sink that blocks (a full pipe that nobody reads) never blocks a
request: past the bound lines are dropped, counted, and the count is reported as soon as the sink takes lines again.
A sink that is closed loses its lines and nothing else. An error in the thread loses the lines it had in hand, which are
counted as dropped, and does not end it.
"""

import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache, lru_cache
from select import PIPE_BUF

request_id: ContextVar[str] = ContextVar("request_id", default="-")  # narrates; nothing decides on it

PATH_KEPT = 200  # characters; even with each of them escaped, a line fits into PIPE_BUF
PENDING = 10_000  # lines; some 3 MB
BATCH = 2_000
GATHER_SECONDS = 0.002  # before each write: a thread that woke for every line would take the interpreter from requests
FLUSH_SECONDS = 1.0  # at exit


class LogSink:
    """Lines in, a file descriptor out. Thread-safe; its thread starts with the first line of each process."""

    def __init__(self, descriptor: int, limit: int = PENDING) -> None:
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._limit = limit
        self._dropped = 0
        self._wake = threading.Event()
        self._writing = False
        self._process = 0
        self._closed = False
        atexit.register(self.flush)
        os.register_at_fork(after_in_child=self._lines.clear)  # the parent writes its own

    def put(self, line: str) -> None:
        """Queue one line (without its line end), or count it as dropped."""
        if len(self._lines) >= self._limit:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._process != os.getpid():
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything queued is written, `seconds` at most."""
        end = time.monotonic() + seconds
        while (self._lines or self._writing) and time.monotonic() < end and self._process == os.getpid():
            time.sleep(GATHER_SECONDS)

    def close(self) -> None:
        """Write what is queued and end the thread; the descriptor stays open."""
        self.flush()
        atexit.unregister(self.flush)
        self._closed = True
        self._wake.set()

    def _start(self) -> None:
        self._process = os.getpid()
        self._wake, self._writing = threading.Event(), False  # not the parent's: a fork may copy a held lock
        try:
            threading.Thread(target=self._write, name="log", daemon=True).start()
        except (RuntimeError, MemoryError):  # the system refuses one more: the next line asks again
            self._process = 0

    def _write(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            time.sleep(GATHER_SECONDS)
            self._writing = True  # before a line is out of the queue
            count = min(len(self._lines), BATCH)
            try:
                self._write_batch(count)
            except Exception:  # MemoryError, say; there is nowhere to say more, and the thread must go on
                self._dropped += count
            self._writing = False
            if self._lines:
                self._wake.set()

    def _write_batch(self, count: int) -> None:
        lines = [self._lines.popleft() for _ in range(count)]
        if dropped := self._dropped:
            lines.append(json.dumps({"time": iso_now(), "level": "WARNING", "droppedLines": dropped}))
        for piece in _pieces(f"{line}\n".encode("utf-8", "replace") for line in lines):
            _write_all(self._descriptor, piece)
        self._dropped -= dropped


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes without parting them: up to PIPE_BUF bytes, no other worker's come between
    (POSIX). A longer line goes alone, and may be parted."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # a pipe that somebody made non-blocking
            time.sleep(0.05)
        except OSError:  # closed: there is nowhere left to say so
            return


class JsonFormatter(logging.Formatter):
    """A record of the standard library's `logging` as one JSON line, in ASCII: no terminal obeys it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": iso_time(int(record.created * 1000)), "level": record.levelname, "logger": record.name,
            "requestId": request_id.get(), "message": record.getMessage(),
        }  # fmt: skip
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class SinkHandler(logging.Handler):
    """Hands the records of `logging` to a sink."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self.sink = sink
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.sink.put(self.format(record))


@cache
def standard_error() -> SinkHandler:
    """The one handler of this process for its descriptor 2."""
    return SinkHandler(LogSink(2))


def configure(level: str) -> LogSink:
    """Send everything that is logged in this process to standard error."""
    root = logging.getLogger()
    root.addHandler(standard_error())
    root.setLevel(level)
    return standard_error().sink


def path_of(target: str) -> str:
    """The path of a request's target as it was sent, cut to 200 characters.

    Query, fragment and user information are left out: they may hold secrets.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:  # the absolute form, RFC 9112 §3.2.2
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path[:PATH_KEPT]


def iso_time(milliseconds: int) -> str:
    """RFC 3339 in UTC, of a time since 1970."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_iso_second(seconds)}.{rest:03d}Z"


def iso_now() -> str:
    return iso_time(time.time_ns() // 1_000_000)


@lru_cache(4096)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
