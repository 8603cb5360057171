"""Our gunicorn worker: a thread of the pool never waits for a client, whatever that client does.

Plain gthread gives a connection to a thread at its first byte, reads the request and sends the answer there: as many
clients as there are threads, each sending one byte or taking none, stop a worker for ever. Here the main thread, in
gunicorn's own loop, reads without blocking until head and body are whole; a thread then only parses, runs the
application and sends what the kernel takes at once. The rest of the answer, and the lingering close that lets a
client read it (RFC 9112 §9.6), are the loop's again: see `conversations.py`.

Promised: a request is whole within REQUEST_TIMEOUT_SECONDS of its first byte, or refused with 408; a client that
sends nothing is closed after as long; an answer is taken within as long, or cut off by a reset. An address holds at
most 100 connections on the machine (TRUSTED_PROXIES excepted). Whoever comes when the worker is full takes the place
of the client that has been idle, or slow, for longest. Every refusal is the envelope. Not promised: TLS and HTTP/2,
which are for a proxy; a bound on how long the application runs.

Tried on gunicorn 26.1.0, 26.2.0, 27.0.0 and 27.0.1. What it leans on is listed in `gunicorn_internals.py`, and the
start is stopped if that has moved.
"""

import errno
import logging
import os
import signal
import socket
import time
from concurrent.futures import Future
from types import FrameType
from typing import Any, ClassVar

from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import ThreadWorker

from backend.server.address_counts import AddressCounts
from backend.server.connection import Connection
from backend.server.conversations import Conversations
from backend.server.gunicorn_internals import names_in, require_internals
from backend.server.refusals import refusal, refusal_for
from backend.server.shutdown import shutting_down
from backend.settings import Settings
from backend.web.client_address import client_address, limit_key

MAX_PER_ADDRESS = 100  # connections
TICK_SECONDS = 0.1  # between two looks at the deadlines; also the pause after a failed accept
STOP_SECONDS = 1.0  # after SIGTERM, in which new connections are answered too, so that /readyz can say it

log = logging.getLogger("backend.server")


class WholeRequestWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A ThreadWorker whose threads get whole requests and never wait. Main thread, unless a method says otherwise."""

    counts: ClassVar[AddressCounts | None] = None  # made by the parent, shared by its workers

    def __init__(self, *args: Any) -> None:  # in the parent, before the fork
        super().__init__(*args)
        self.connections_of = WholeRequestWorker.counts = self.counts or AddressCounts()
        self.number = self.connections_of.begin_worker()
        self.settings = Settings.from_environment(os.environ)
        self.next_look = 0.0  # at the deadlines
        self.accept_again = 0.0
        self.stopping_until = 0.0

    @classmethod
    def check_config(cls, cfg: Any, logger: Any) -> None:
        """Gunicorn calls this at its start, and prints a RuntimeError as one line."""
        super().check_config(cfg, logger)
        require_internals()
        if cfg.is_ssl:
            raise RuntimeError("certfile is set, but this worker speaks no TLS: leave that to a proxy")
        if "forget_connections" not in names_in(cfg.child_exit.__code__):
            raise RuntimeError("child_exit must call worker.forget_connections(), as in backend/gunicorn_conf.py")

    def run(self) -> None:
        """The worker's life. Gunicorn's loop calls `accept`, `finish_request` and, in each turn, `murder_pending`."""
        patience, origins = self.settings.request_timeout_seconds, self.settings.cors_origins
        self.conversations = Conversations(
            self.poller, self.run_request, self.forget, patience, self.cfg.keepalive, origins
        )
        super().run()

    def accept(self, listener: socket.socket) -> None:
        try:
            stream, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                self.pause_accepting(error)
            return
        conn = Connection(stream, client, listener.getsockname())
        if not self.admit(conn):
            stream.close()
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self.conversations.make_room()
        self.conversations.begin(conn)

    def admit(self, conn: Connection) -> bool:
        """Whether the client may have one more connection; counted if so."""
        trusted = self.settings.trusted_proxies
        if conn.address in trusted:
            return True
        conn.counted_as = limit_key(client_address(conn.address.partition("%")[0], "", trusted)) or "unix"
        return self.connections_of.enter(self.number, conn.counted_as, MAX_PER_ADDRESS)

    def run_request(self, conn: Connection, request: bytes) -> None:
        """Have it handled here if that is short, else in the pool; then this thread does `finish_request`."""
        conn.parser = RequestParser(self.cfg, [request], conn.client)
        if conn.ran_here or not self.is_short(conn.head[0]):
            self.conversations.room.forget(conn)
            self.enqueue_req(conn)
            return
        conn.ran_here = True  # once in a turn, lest one client's many requests keep all others waiting
        done: Future[bool] = Future()
        try:
            done.set_result(self.handle(conn))
        except Exception as error:
            done.set_exception(error)
        self.finish_request(conn, done)

    def is_short(self, request_line: bytes) -> bool:
        """Whether the application says so of it (`App.is_short`); one that says nothing has all in the pool."""
        method, target, _ = request_line.decode().split(" ")
        return hasattr(self.wsgi, "is_short") and self.wsgi.is_short(method, target.partition("?")[0])

    def handle(self, conn: Connection) -> bool:
        """In a pool thread. True if the connection may go on; whatever this raises cuts it off."""
        request = None
        try:
            request = next(conn.parser)
            keep = bool(self.handle_request(request, conn))
            conn.flush_answer()
            return keep
        except (Exception, SystemExit) as error:
            if conn.answering:  # half an answer cannot be taken back
                raise
            self.handle_error(request, conn, conn.client, error)
            return False

    def handle_error(self, req: Any, client: Connection, addr: Any, exc: BaseException) -> None:
        """In a pool thread: answer where the application did not."""
        error = refusal_for(exc)
        cause = exc if error.status >= 500 else None
        client.sendall(refusal(error, client.head, client.address, self.settings.cors_origins, cause))

    def finish_request(self, conn: Connection, future: "Future[bool]") -> None:
        error = future.exception()
        if error is None:
            return self.conversations.answer(conn, keep=future.result())
        if not isinstance(error, ConnectionError | StopIteration):  # at the latter, gunicorn has logged
            log.error("an answer was cut off", exc_info=error)
        return self.conversations.close(conn, reset=True)

    def forget(self, conn: Connection) -> None:
        self.nr_conns -= 1
        if conn.counted_as:
            self.connections_of.leave(self.number, conn.counted_as)

    def forget_connections(self) -> None:
        """In the parent, when this worker has died: gunicorn calls `child_exit` of our configuration, and that this."""
        self.connections_of.end_worker(self.number)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        super().wait_for_and_dispatch_events(min(timeout, TICK_SECONDS) if self.nr_conns else timeout)

    def murder_pending(self) -> None:
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + TICK_SECONDS
        if not self.alive:
            self.set_accept_enabled(False)
            self.conversations.room.hasten_idle(self.stopping_until)
        self.conversations.look_at_deadlines()

    def set_accept_enabled(self, enabled: bool) -> None:
        """As gunicorn says; but not during a pause, and for a moment longer when we are told to stop."""
        now = time.monotonic()
        if not self.alive:
            self.stopping_until = self.stopping_until or now + STOP_SECONDS
            in_time = now < self.stopping_until and self.nr_conns < self.worker_connections
            enabled = in_time and shutting_down.is_set()  # else it is only due to be replaced, see max_requests
        super().set_accept_enabled(enabled and now >= self.accept_again)

    def pause_accepting(self, error: OSError) -> None:
        """Out of descriptors or memory: make room and go on soon, neither dying of it nor trying in a tight loop."""
        log.warning("cannot accept a connection: %s", error)
        self.accept_again = time.monotonic() + TICK_SECONDS
        self.set_accept_enabled(False)
        self.conversations.make_room(share=0.1)

    def is_parent_alive(self) -> bool:
        """An orphan stops as on SIGTERM; gunicorn's own would serve for as long as its clients keep it busy."""
        if super().is_parent_alive():
            return True
        self.handle_exit(signal.SIGTERM, None)
        return False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: `/readyz` says so, running requests finish, idle connections go after a moment."""
        shutting_down.set()
        super().handle_exit(sig, frame)
