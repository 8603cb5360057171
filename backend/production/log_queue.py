"""The log queue: no request waits for the reader of the log.

The core's handler writes each line in the thread that logs it. If the reader of a pipe stops, the pipe is full after
64 KiB, some 250 requests, and then every thread of every worker waits in `write` until it reads on: the service stands
still. It also costs a system call a request.

Here the thread that logs only appends the line to a bounded queue. A thread of each process writes what has come
together, in pieces that a pipe takes whole.

Promised: logging never waits for the reader. Lines beyond the bound are dropped and counted, and the count is logged as
soon as lines can be written again. A descriptor that was closed loses its lines and nothing else. An error in the
writing thread loses the lines it had in hand, which count as dropped, and does not end the thread. A line of up to
PIPE_BUF bytes is never parted by another process's line. What is queued at the exit gets a second to be written.
Not promised: that the last lines before a SIGKILL are written.
"""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from json.encoder import encode_basestring_ascii as quote
from select import PIPE_BUF
from typing import Any

from backend.infrastructure.logs import JsonFormatter, access, request_id
from backend.infrastructure.timestamps import iso_now

PENDING = 10_000  # lines; some 3 MB
BATCH = 2_000
GATHER_SECONDS = 0.002  # before each write: a thread that woke for every line would take the interpreter from requests
FLUSH_SECONDS = 1.0


class LogQueue(logging.Handler):
    """A handler that queues its lines for a file descriptor, which stays open. Thread-safe.

    Each process that logs has a writing thread of its own, which starts with its first line.
    """

    def __init__(self, descriptor: int, limit: int = PENDING) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._limit = limit
        self._dropped = 0
        self._wake = threading.Event()  # of the writing thread, which ends when it finds another one here
        self._writing = False
        self._process = 0  # that the writing thread runs in; 0: there is none
        self._starting = threading.Lock()
        os.register_at_fork(after_in_child=self._begin_anew)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line. One that cannot be formatted counts as dropped."""
        try:
            self._put(self.format(record))
        except Exception:
            self._dropped += 1

    def log_request(self, fields: Mapping[str, Any]) -> None:
        """Queue the line of a request, to the letter as the core's `log_request` and `JsonFormatter` make it.

        Through `logging` and `json` it takes 30 µs, half as long as all else that is done for a cached read; so, 5.
        """
        if access.isEnabledFor(logging.INFO):
            route, user_id = fields["route"], fields["userId"]
            self._put(
                f'{{"time": "{iso_now()}", "level": "INFO", "requestId": {quote(request_id.get())}, '
                f'"method": {quote(fields["method"])}, "path": {quote(fields["path"])}, '
                f'"route": {quote(route) if route else "null"}, "status": {fields["status"]}, "ms": {fields["ms"]}, '
                f'"userId": {quote(user_id) if user_id else "null"}, "client": {quote(fields["client"])}, '
                f'"bytes": {fields["bytes"]}}}'
            )

    def _put(self, line: str) -> None:
        """Queue a line, or count it as dropped if the queue is full."""
        if len(self._lines) >= self._limit:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._process != os.getpid():
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until everything queued is written, `seconds` at most. `logging` calls it at the exit."""
        end = time.monotonic() + seconds
        while (self._lines or self._writing) and time.monotonic() < end and self._process == os.getpid():
            time.sleep(GATHER_SECONDS)

    def close(self) -> None:
        """Write what is queued and end the thread. A later record starts another."""
        self.flush()
        wake, self._wake, self._process = self._wake, threading.Event(), 0
        wake.set()
        super().close()

    def _begin_anew(self) -> None:
        """In the child of a fork: its parent writes the lines that are queued."""
        self._lines.clear()
        self._starting = threading.Lock()

    def _start(self) -> None:
        """Start this process's thread. If the system refuses it, the next line asks again."""
        with self._starting:
            if self._process == os.getpid():
                return
            self._wake, self._writing = threading.Event(), False  # not the parent's: a fork may copy a held lock
            with suppress(RuntimeError, MemoryError):
                threading.Thread(target=self._write, args=[self._wake], name="log", daemon=True).start()
                self._process = os.getpid()

    def _write(self, wake: threading.Event) -> None:
        while self._wake is wake:
            wake.wait()
            wake.clear()
            time.sleep(GATHER_SECONDS)
            self._writing = True  # before a line is out of the queue
            count = min(len(self._lines), BATCH)
            try:
                self._write_batch(count)
            except Exception:  # MemoryError, say; there is nowhere to log it, and the thread must go on
                self._dropped += count
            self._writing = False
            if self._lines:
                wake.set()

    def _write_batch(self, count: int) -> None:
        lines = [self._lines.popleft() for _ in range(count)]
        if dropped := self._dropped:
            lines.append(json.dumps({"time": iso_now(), "level": "WARNING", "droppedLines": dropped}))
        for piece in _pieces(f"{line}\n".encode("utf-8", "replace") for line in lines):
            _write_all(self._descriptor, piece)
        self._dropped -= dropped


@cache
def standard_error() -> LogQueue:
    """The one queue of this process for its descriptor 2."""
    return LogQueue(2)


def configure(level: str) -> None:
    """As the core's `configure`, through the queue."""
    logging.basicConfig(level=level, handlers=[standard_error()])


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes without parting them: up to PIPE_BUF bytes, no other process's come between
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
