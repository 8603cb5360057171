"""The loop of the worker's main thread: it reads requests, sends answers and closes connections.

Plain gthread blocks a thread in each of these places, so each stalled client takes a thread away. Here no step blocks.
A step that cannot go on leaves its connection waiting, with a deadline and the step to take at the next event. The
worker checks the deadlines ten times a second.

Promised: each wait for a client ends by its deadline, and further bytes do not extend it; a worker holds at most 64 MiB
for its clients. Not promised: fairness between clients by bytes or by address.
"""

import selectors
import socket
import time
from collections.abc import Callable

from backend.errors import AppError, RequestTimeout
from backend.production.connection import Connection, Step, longest_waiting, surplus
from backend.production.error_responses import refusal
from backend.production.request_reader import RequestReader
from backend.production.wsgi import WholeRequest

MAX_HELD = 64 * 1024 * 1024  # bytes of unfinished requests and unsent answers, of all clients of this worker
RECEIVE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0  # for a client to read its last answer and close
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class ConnectionLoop:
    """The life of each connection: begin → (receive → dispatch → run → answer → send)* → linger → drain.

    `run` gets each request once it is whole; `answer` must be called for it later. `closed` gets each connection that
    is closed. A request must arrive, and an answer be taken, within `timeout` seconds; the next request must begin
    within `keepalive` seconds. One thread only.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        run: Callable[[Connection, WholeRequest], None],
        closed: Callable[[Connection], None],
        timeout: float,
        keepalive: float,
        origins: frozenset[str],
    ) -> None:
        self._poller, self._run, self._closed = poller, run, closed
        self._timeout, self._keepalive, self._origins = timeout, keepalive, origins
        self._waiting: set[Connection] = set()  # for their client; every other connection belongs to a running step

    def begin(self, conn: Connection) -> None:
        """Take a new connection."""
        self._advance(conn, self._await_first_request)

    def answer(self, conn: Connection, keep: bool) -> None:
        """Send the answer that has been put into the connection; then await the next request, or close."""
        conn.keep = keep
        conn.allow(self._timeout)
        self._advance(conn, self._send)

    def forget(self, conn: Connection) -> None:
        """Stop watching a connection: it is about to be closed, or used by another thread."""
        if conn.events:
            self._poller.unregister(conn)
            conn.events = 0

    def close_overdue(self) -> None:
        """End every wait whose deadline has passed, and close connections while they hold too many bytes."""
        now = time.monotonic()
        for conn in [conn for conn in self._waiting if conn.deadline <= now]:
            self._waiting.remove(conn)
            if conn.step == self._receive:
                self._advance(conn, self._receive_last)
            else:
                self._close(conn)
        for conn in surplus(self._waiting, MAX_HELD):
            self._close(conn)

    def make_room(self, share: float = 0) -> None:
        """Close this share of the waiting connections, at least one, the longest waiting first."""
        for conn in longest_waiting(self._waiting, max(1, int(share * len(self._waiting)))):
            self._close(conn)

    def hasten_idle(self, since: float, seconds: float) -> None:
        """Let each idle connection wait `seconds` at most, from `since` or, if later, from when it became idle."""
        for conn in self._waiting:
            if conn.idle:
                conn.deadline = min(conn.deadline, max(since, conn.waits_since) + seconds)

    def _await_first_request(self, conn: Connection) -> None:
        if conn.address:
            conn.limit_kernel(self._timeout)
        conn.allow(self._timeout)
        self._dispatch(conn)

    def _receive(self, conn: Connection) -> None:
        begun, conn.ran_inline = conn.reader.begun, False
        data = conn.stream.recv(RECEIVE_BYTES)
        if not data and conn.reader.size:  # empty lines alone are no request that could be cut short
            raise conn.reader.cut_short()
        if not data:
            return self._close(conn)
        if not begun:
            conn.allow(self._timeout)
        conn.reader.feed(data)
        return self._dispatch(conn)

    def _receive_last(self, conn: Connection) -> None:
        """The deadline has passed. A request that has arrived since the poller last looked is in time."""
        if conn.reader.begun:
            raise RequestTimeout
        if not conn.has_sent():
            return self._close(conn)
        return self._receive(conn)

    def _dispatch(self, conn: Connection) -> None:
        """Run the next request if it is whole; else wait for the rest of it."""
        request = conn.reader.take()
        if request:
            return self._run(conn, request)
        if conn.reader.waits_for_continue:
            conn.reader.waits_for_continue = False
            conn.put(CONTINUE)
        return self._await_rest(conn)

    def _await_rest(self, conn: Connection) -> None:
        conn.flush()
        if conn.unsent:
            self._wait(conn, WRITE, self._await_rest)
        else:
            self._wait(conn, READ, self._receive)

    def _send(self, conn: Connection) -> None:
        conn.flush()
        if conn.unsent:
            self._wait(conn, WRITE, self._send)
        elif conn.keep:
            # Bytes of the next request may have come during the answer; its time begins now all the same.
            conn.allow(self._timeout if conn.reader.begun else self._keepalive)
            self._dispatch(conn)
        else:
            self._linger(conn)

    def _linger(self, conn: Connection) -> None:
        """RFC 9112 §9.6: closing with unread bytes resets the connection, and the client may lose its answer."""
        conn.reader = RequestReader()
        conn.stream.shutdown(socket.SHUT_WR)
        conn.allow(LINGER_SECONDS)
        self._wait(conn, READ, self._drain)

    def _drain(self, conn: Connection) -> None:
        if conn.stream.recv(RECEIVE_BYTES):
            self._wait(conn, READ, self._drain)
        else:
            self._close(conn)

    def _wait(self, conn: Connection, events: int, step: Step) -> None:
        """Take `step` as soon as one of `events` happens.

        Most connections wait again within one turn of the loop, so only a change goes to the poller.
        """
        conn.step = step
        self._waiting.add(conn)
        if conn.events != events:
            self.forget(conn)
            self._poller.register(conn, events, self._ready)
            conn.events = events

    def _ready(self, conn: Connection) -> None:
        if conn in self._waiting:  # an earlier event of the same turn may have closed it
            self._waiting.remove(conn)
            self._advance(conn, conn.step)

    def _advance(self, conn: Connection, step: Step) -> None:
        """Take one step of a connection that is not waiting. Every error of a step ends here."""
        try:
            step(conn)
        except BlockingIOError:  # reported ready, but was not
            self._wait(conn, conn.events or READ, step)
        except OSError:  # the client is gone
            self._close(conn)
        except AppError as error:
            conn.put(refusal(error, conn.reader.head, conn.address, self._origins))
            self.answer(conn, keep=False)

    def _close(self, conn: Connection) -> None:
        if conn.unsent:
            conn.reset()
        self._waiting.discard(conn)
        self.forget(conn)
        conn.stream.close()
        self._closed(conn)
