"""Our gunicorn worker: a thread of the pool never waits for a client, whatever that client does.

Plain gthread gives a connection to a thread at its first byte, reads the request and sends the answer there: as many
clients as there are threads, each sending one byte or taking none, stop a worker for ever. Here the main thread, in
gunicorn's own loop, reads without blocking until head and body are whole; a thread then only runs the application and
sends what the kernel takes at once. The rest of the answer, and the lingering close that lets a client read it
(RFC 9112 §9.6), are the loop's again: see `connection_loop.py`.

What the application calls short, the loop runs itself: to hand a request to another thread, and the interpreter with
it, costs more than most reads do. (One user over HTTP: 117 µs of CPU, in the pool 205, a bare function on gthread 142.)

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
import math
import os
import signal
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

from gunicorn.workers.gthread import ThreadWorker

from backend.domain import network_of
from backend.errors import InternalError
from backend.infrastructure.passwords import MAX_WAITING
from backend.infrastructure.shutdown import shutting_down
from backend.production.address_counts import AddressCounts
from backend.production.connection import Connection
from backend.production.connection_loop import Conversations
from backend.production.error_responses import refusal
from backend.production.gunicorn_internals import names_in, require_internals
from backend.production.wsgi import WholeRequest, answer
from backend.settings import Settings
from backend.web.client_address import client_address
from backend.web.router import Lane

MAX_PER_ADDRESS = 100  # connections
TICK_SECONDS = 0.1  # between two looks at the deadlines; also the pause after a failed accept
PASSWORD_THREADS = (os.cpu_count() or 1) + MAX_WAITING + 4  # all that may run or wait, and some to refuse more
STOP_SECONDS = 1.0  # after SIGTERM, in which new connections are answered, and in which each idle one may still ask
WARN_SECONDS = 60.0

log = logging.getLogger("backend.production")


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
        self.warn_again: dict[str, float] = {}  # by message: not before
        self.ending_since = math.inf  # told to stop, or due to be replaced

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
        with ThreadPoolExecutor(PASSWORD_THREADS) as self.password_pool:  # starts a thread only when none is idle
            super().run()

    def accept(self, listener: socket.socket) -> bool:
        """Take one connection. False if none waits, or none can be taken now."""
        try:
            stream, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                self.pause_accepting(error)
            return False
        conn = Connection(stream, client, listener.getsockname())
        if not self.admit(conn):
            stream.close()
            return True
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self.warn_seldom("%d connections are open: the longest idle make room", self.nr_conns)
            self.conversations.make_room()
        self.conversations.begin(conn)
        return True

    def admit(self, conn: Connection) -> bool:
        """Whether the client may have one more connection; counted if so."""
        trusted = self.settings.trusted_proxies
        if conn.address in trusted:
            return True
        conn.counted_as = network_of(client_address(conn.address.partition("%")[0], "", trusted)) or "unix"
        if self.connections_of.enter(self.number, conn.counted_as, MAX_PER_ADDRESS):
            return True
        self.warn_seldom(
            "connections of %s beyond %d are closed; if it is a proxy, TRUSTED_PROXIES must name it",
            conn.counted_as,
            MAX_PER_ADDRESS,
        )
        return False

    def run_request(self, conn: Connection, request: WholeRequest) -> None:
        """Have it handled here or by a thread of its lane; then this thread sees to the answer."""
        lane = self.lane_of(request)
        if lane is Lane.LOOP and not conn.ran_here:
            conn.ran_here = True  # once in a turn, lest one client's many requests keep all others waiting
            return self.conversations.answer(conn, keep=self.handle(conn, request))
        self.conversations.room.forget(conn)
        pool = self.password_pool if lane is Lane.PASSWORDS else self.tpool
        future: Future[bool] = pool.submit(self.handle_and_send, conn, request)
        return future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def lane_of(self, request: WholeRequest) -> Lane:
        """The application says so (`App.lane_of`); for one that does not, all runs in the pool."""
        if not hasattr(self.wsgi, "lane_of"):
            return Lane.POOL
        method, target, _ = request.head[0].decode().split(" ")
        lane: Lane = self.wsgi.lane_of(method, target)
        return lane

    def handle_and_send(self, conn: Connection, request: WholeRequest) -> bool:
        """In a pool thread: as `handle`, and what the kernel takes of the answer goes out at once."""
        keep = self.handle(conn, request)
        with suppress(OSError):  # the loop will find the same
            conn.flush()
        return keep

    def handle(self, conn: Connection, request: WholeRequest) -> bool:
        """Put the answer into the connection. True if that may go on afterwards."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.ending_since = min(self.ending_since, time.monotonic())
        keep = self.ending_since == math.inf and request.keeps_connection
        try:
            for piece in answer(self.wsgi, request, conn.client, conn.server, keep):
                conn.put(piece)
        except (Exception, SystemExit) as error:
            conn.put(refusal(InternalError(), request.head, conn.address, self.settings.cors_origins, error))
            return False
        return keep

    def finish_request(self, conn: Connection, done: "Future[bool]") -> None:
        error = done.exception()
        if error is None:
            return self.conversations.answer(conn, keep=done.result())
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
        ticking = self.nr_conns or self.ending_since < math.inf
        super().wait_for_and_dispatch_events(min(timeout, TICK_SECONDS) if ticking else timeout)

    def murder_pending(self) -> None:
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + TICK_SECONDS
        if self.ending_since < math.inf:
            self.conversations.room.hasten_idle(self.ending_since, STOP_SECONDS)
            self.set_accept_enabled(True)
            if not self.may_accept(now):
                self.alive = False  # gunicorn's loop now goes on for as long as connections are open
                if shutting_down.is_set():
                    self.close_listeners()
        self.conversations.look_at_deadlines()

    def may_accept(self, now: float) -> bool:
        """A worker that is only due to be replaced leaves new connections to the others at once."""
        return now < self.ending_since + (STOP_SECONDS if shutting_down.is_set() else 0)

    def set_accept_enabled(self, enabled: bool) -> None:
        """As gunicorn says; but not during a pause, and not at the worker's end."""
        now = time.monotonic()
        super().set_accept_enabled(enabled and now >= self.accept_again and self.may_accept(now))

    def close_listeners(self) -> None:
        """Take first what has connected already: the last process that closes a listener resets what waits there."""
        self.set_accept_enabled(False)
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):
                if self.nr_conns >= self.worker_connections or not self.accept(listener):
                    break
            listener.close()
        self.sockets: list[Any] = []

    def warn_seldom(self, message: str, *values: object) -> None:
        """Log it, but each message once in WARN_SECONDS only: clients must not fill the log."""
        now = time.monotonic()
        if now >= self.warn_again.get(message, 0):
            self.warn_again[message] = now + WARN_SECONDS
            log.warning(message, *values)

    def pause_accepting(self, error: OSError) -> None:
        """Out of descriptors or memory: make room and go on soon, neither dying of it nor trying in a tight loop."""
        self.warn_seldom("cannot accept a connection: %s", error)
        self.accept_again = time.monotonic() + TICK_SECONDS
        self.set_accept_enabled(False)
        self.conversations.make_room(share=0.1)

    def is_parent_alive(self) -> bool:
        """An orphan stops as on SIGTERM; gunicorn's own would serve for as long as its clients keep it busy."""
        if not shutting_down.is_set() and not super().is_parent_alive():
            self.handle_exit(signal.SIGTERM, None)
        return True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: `/readyz` says so, running requests finish, idle connections go after a moment.

        Gunicorn's own would end the loop here, and with it the process if no connection is open.
        """
        if not shutting_down.is_set():
            shutting_down.set()
            self.ending_since = time.monotonic()
            self.method_queue.defer(lambda: None)  # wakes the loop
