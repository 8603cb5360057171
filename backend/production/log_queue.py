"""The log queue: no request waits for the reader of the log.

The core's handler writes each line in the thread that logs it. If the reader of a pipe stops, the pipe is full after
64 KiB, some 250 requests. Then every thread of every worker blocks in `write` until the reader goes on. The handler
also makes a system call for each request.

Here the logging thread only appends the line to a bounded queue. One thread of each process writes the queued lines, in
pieces that a pipe takes whole.

Promised: logging never waits for the reader. Lines beyond the bound are dropped and counted, and the count is logged as
soon as lines can be written again. If the descriptor was closed, its lines are lost; requests are not affected. An
error in the writing thread drops and counts the lines of its batch, and does not end the thread. A line of up to
PIPE_BUF bytes stays whole beside those of other processes. At the exit, the queued lines are written if that takes less
than a second. Not promised: that the last lines before a SIGKILL are written.
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

from backend.infrastructure.logs import JsonFormatter, access, request_id, trace_id
from backend.infrastructure.timestamps import iso_now

PENDING = 10_000  # lines; some 3 MB
BATCH = 2_000
GATHER_SECONDS = 0.002  # before each write; to wake the thread for every line would slow down requests
FLUSH_SECONDS = 1.0


class LogQueue(logging.Handler):
    """A handler that queues its lines for a file descriptor, which it does not close. Thread-safe.

    Each process that logs has a writing thread of its own, which starts with its first line.
    """

    def __init__(self, descriptor: int, limit: int = PENDING) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._limit = limit
        self._dropped = 0
        self._wake = threading.Event()  # of the writing thread, which ends when this is another one
        self._writing = False
        self._process = 0  # in which the writing thread runs; 0: there is none
        self._starting = threading.Lock()
        os.register_at_fork(after_in_child=self._begin_anew)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line. One that cannot be formatted counts as dropped."""
        try:
            self._put(self.format(record))
        except Exception:
            self._dropped += 1

    def log_request(self, fields: Mapping[str, Any]) -> None:
        """Queue the line of a request: exactly the line of the core's `log_request` and `JsonFormatter`.

        `logging` and `json` take 30 µs for it, half as long as the rest of a cached read. This takes 5.
        """
        if access.isEnabledFor(logging.INFO):
            route, user_id, trace = fields["route"], fields["userId"], trace_id.get()
            traced = f'"traceId": {quote(trace)}, ' if trace else ""
            self._put(
                f'{{"time": "{iso_now()}", "level": "INFO", "requestId": {quote(request_id.get())}, {traced}'
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
        """Wait until all queued lines are written, for `seconds` at most. `logging` calls it at the exit."""
        end = time.monotonic() + seconds
        while (self._lines or self._writing) and time.monotonic() < end and self._process == os.getpid():
            time.sleep(GATHER_SECONDS)

    def close(self) -> None:
        """Write the queued lines and end the thread. A later record starts another."""
        self.flush()
        wake, self._wake, self._process = self._wake, threading.Event(), 0
        wake.set()
        super().close()

    def _begin_anew(self) -> None:
        """In the child of a fork, drop the queued lines: the parent writes them."""
        self._lines.clear()
        self._starting = threading.Lock()

    def _start(self) -> None:
        """Start this process's writing thread. If none can start, the next line tries again."""
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
            self._writing = True  # before a line leaves the queue: `flush` looks at both
            count = min(len(self._lines), BATCH)
            try:
                self._write_batch(count)
            except Exception:  # such as MemoryError; it cannot be logged, and the thread must go on
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
    """Log from this level on through the queue, as the core's `configure` does without it."""
    logging.basicConfig(level=level, handlers=[standard_error()])


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines, joined up to PIPE_BUF bytes, which POSIX writes to a pipe without interleaving.

    A longer line is a piece by itself, and another process's bytes may come into its middle.
    """
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
        except BlockingIOError:  # another process that shares the pipe has made it non-blocking
            time.sleep(0.05)
        except OSError:  # closed: the error cannot be logged
            return
