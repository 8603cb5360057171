"""What the worker's loop does with its clients: read their requests, send them their answers, part with them.

Nothing here blocks. A step that cannot go on leaves its connection in the waiting room, with a deadline and the step
to take next; the loop looks at the deadlines ten times a second.
"""

import selectors
import socket
from collections.abc import Callable

from backend.errors import AppError, RequestTimeout
from backend.production.connection import Connection, Step
from backend.production.error_responses import refusal
from backend.production.request_reader import RequestReader
from backend.production.waiting_room import WaitingRoom
from backend.production.wsgi import WholeRequest

MAX_HELD = 64 * 1024 * 1024  # bytes that all clients together have us hold: unfinished requests, untaken answers
RECEIVE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0  # for a client to read its last answer and close
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Conversations:
    """The life of each connection: begin → (receive → dispatch → run → answer → send)* → linger → drain.

    `run` is given each request once it is whole, and `answer` or `close` called when it has been run; `ended` is told
    of each connection that is closed. `patience` (seconds) is for a request to come and for an answer to be taken,
    `keepalive` for the next request to begin. One thread only.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        run: Callable[[Connection, WholeRequest], None],
        ended: Callable[[Connection], None],
        patience: float,
        keepalive: float,
        origins: frozenset[str],
    ) -> None:
        self.room = WaitingRoom(poller, self.advance)
        self._run, self._ended = run, ended
        self._patience, self._keepalive, self._origins = patience, keepalive, origins

    def begin(self, conn: Connection) -> None:
        """Take a new connection."""
        self.advance(conn, self.await_first_request)

    def await_first_request(self, conn: Connection) -> None:
        if conn.address:
            conn.limit_kernel(self._patience)
        conn.allow(self._patience)
        self.dispatch(conn)

    def receive(self, conn: Connection) -> None:
        begun, conn.ran_here = conn.reader.begun, False
        data = conn.stream.recv(RECEIVE_BYTES)
        if not data and conn.reader.size:  # empty lines alone are no request that could be cut short
            raise conn.reader.cut_short()
        if not data:
            return self.close(conn)
        if not begun:
            conn.allow(self._patience)
        conn.reader.feed(data)
        return self.dispatch(conn)

    def receive_last(self, conn: Connection) -> None:
        """The deadline has passed. A request that has come since the poller last looked is not too late."""
        if conn.reader.begun:
            raise RequestTimeout
        if not conn.has_sent():
            return self.close(conn)
        return self.receive(conn)

    def dispatch(self, conn: Connection) -> None:
        """Have the next request run if it is whole, else wait for the rest of it."""
        request = conn.reader.take()
        if request:
            return self._run(conn, request)
        if conn.reader.waits_for_continue:
            conn.reader.waits_for_continue = False
            conn.stream.send(CONTINUE)
        return self.room.enter(conn, READ, self.receive)

    def answer(self, conn: Connection, keep: bool) -> None:
        """The answer is in the connection: see it out, and then await another request or part."""
        conn.keep = keep
        conn.allow(self._patience)
        self.advance(conn, self.send)

    def send(self, conn: Connection) -> None:
        conn.flush()
        if conn.unsent:
            self.room.enter(conn, WRITE, self.send)
        elif conn.keep:
            # What has come of the next request has waited for us so far, not we for it.
            conn.allow(self._patience if conn.reader.begun else self._keepalive)
            self.dispatch(conn)
        else:
            self.linger(conn)

    def linger(self, conn: Connection) -> None:
        """Closing at once would reset the connection if anything is unread, and might cost the client its answer."""
        conn.reader = RequestReader()
        conn.stream.shutdown(socket.SHUT_WR)
        conn.allow(LINGER_SECONDS)
        self.room.enter(conn, READ, self.drain)

    def drain(self, conn: Connection) -> None:
        if conn.stream.recv(RECEIVE_BYTES):
            self.room.enter(conn, READ, self.drain)
        else:
            self.close(conn)

    def advance(self, conn: Connection, step: Step) -> None:
        """Take one step of a connection that is not in the waiting room. All that can go wrong in one ends here."""
        try:
            step(conn)
        except BlockingIOError:  # it looked ready, and was not
            self.room.enter(conn, conn.events or READ, step)
        except OSError:  # the client is gone
            self.close(conn)
        except AppError as error:
            self.refuse(conn, error)

    def refuse(self, conn: Connection, error: AppError) -> None:
        conn.put(refusal(error, conn.reader.head, conn.address, self._origins))
        self.answer(conn, keep=False)

    def close(self, conn: Connection, reset: bool = False) -> None:
        """`reset` drops what is unsent, and lets the client know that its answer is not whole."""
        if reset or conn.unsent:
            conn.reset()
        self.room.forget(conn)
        conn.stream.close()
        self._ended(conn)

    def look_at_deadlines(self) -> None:
        for conn in self.room.take_overdue():
            if conn.step == self.receive:
                self.advance(conn, self.receive_last)
            else:
                self.close(conn)
        for conn in self.room.take_surplus(MAX_HELD):
            self.close(conn)

    def make_room(self, share: float = 0) -> None:
        """Part with that share of the waiting clients, at least one: with those that have had us wait for longest."""
        for conn in self.room.take_longest(max(1, int(share * len(self.room)))):
            self.close(conn)
