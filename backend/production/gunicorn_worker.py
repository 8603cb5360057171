"""A gunicorn worker in which no thread waits for a client.

Plain gthread gives a connection to a thread, which reads the request and sends the answer. So each stalled client
blocks a thread: 16 clients that have sent half a head stop two workers of eight threads, and in 40 s no other client
gets an answer. Here 300 such clients delay an answer by 10 ms at most.

The main thread runs a loop that never blocks (`connection_loop.py`). It reads until head and body are whole. A thread
of a pool then runs the application, sends what the kernel takes at once, and is free. The loop sends the rest. Short
requests run on the loop itself, since a change of threads costs more than most reads (`lanes.py`).

Promised: a request is whole within REQUEST_TIMEOUT_SECONDS of its first byte, or refused with 408; a client that sends
nothing is closed after the same time; an answer that is not taken within the same time is cut off by a reset. An
address holds at most 100 connections on the machine, TRUSTED_PROXIES excepted. When a worker is full, it closes the
connection that has waited longest for its client to make room for a new one. Every refusal is the envelope. SIGTERM and
SIGHUP lose no request. A worker that cannot start a thread answers 503, and goes on.

Not promised: TLS and HTTP/2, which a proxy adds; a limit on how long the application runs; an answer to the requests
that a killed worker was running.

It uses gunicorn's master and, of the base class of workers, `alive`, `cfg`, `max_requests`, `notify`, `nr`, `ppid`,
`sockets`, `wsgi`, the signal handlers, and `PIPE`, to which signals write. Tried on 26.1.0 to 27.0.1.
"""

import errno
import logging
import math
import os
import selectors
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

from gunicorn.workers.base import Worker

from backend.domain import network_of
from backend.errors import AppError, InternalError, Unavailable
from backend.infrastructure.passwords import MAX_WAITING
from backend.infrastructure.shutdown import shutting_down
from backend.production.address_counts import AddressCounts
from backend.production.connection import Connection
from backend.production.connection_loop import ConnectionLoop
from backend.production.database import GroupCommitDatabase
from backend.production.error_responses import refusal
from backend.production.lanes import Lane, lane_of
from backend.production.wsgi import WholeRequest, answer
from backend.settings import Settings
from backend.web.client_address import client_address

MAX_PER_ADDRESS = 100  # connections
TICK_SECONDS = 0.1  # between two looks at the deadlines; also the pause after a failed accept
QUIET_TICK_SECONDS = 1.0  # the same without a connection
PASSWORD_THREADS = (os.cpu_count() or 1) + MAX_WAITING + 4  # all that may run or wait, and four to refuse more
PROBE_THREADS = 2  # one may wait for the checks of `/readyz` while the other answers `/healthz`
STOP_SECONDS = 1.0  # after SIGTERM: new connections are answered, and an idle one may send another request
WARN_SECONDS = 60.0

log = logging.getLogger("backend.production")


class WholeRequestWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Runs whole requests in threads that never wait for a client. Main thread only, unless a method says otherwise."""

    counts: ClassVar[AddressCounts | None] = None  # made by the master, shared by its workers

    def __init__(self, *args: Any) -> None:  # in the master, before the fork
        super().__init__(*args)
        self.connections_of = WholeRequestWorker.counts = self.counts or AddressCounts()
        self.number = self.connections_of.begin_worker()
        self.settings = Settings.from_environment(os.environ)
        self.open_count, self.max_open = 0, self.cfg.worker_connections
        self.accepting = False
        self.next_look = self.accept_again = 0.0  # seconds of the monotonic clock, as all times here
        self.warn_again: dict[str, float] = {}  # by message
        self.ending_since = math.inf  # when it was told to stop, or became due to be replaced
        self.finished: deque[tuple[Connection, bool]] = deque()  # by the pools; see `finish_requests`

    @classmethod
    def check_config(cls, cfg: Any, logger: Any) -> None:
        """Gunicorn calls this at its start, and prints a RuntimeError as one line."""
        if cfg.is_ssl:
            raise RuntimeError("certfile is set, but this worker speaks no TLS: leave that to a proxy")
        if "forget_connections" not in cfg.child_exit.__code__.co_names:
            raise RuntimeError("child_exit must call worker.forget_connections(), as in backend/gunicorn_conf.py")

    def run(self) -> None:
        """The worker's life, from its first connection to its last."""
        timeout, origins = self.settings.request_timeout_seconds, self.settings.cors_origins
        self.poller = selectors.DefaultSelector()
        self.poller.register(self.PIPE[0], selectors.EVENT_READ, self.finish_requests)
        self.loop = ConnectionLoop(self.poller, self.run_request, self.forget, timeout, self.cfg.keepalive, origins)
        with (
            ThreadPoolExecutor(self.cfg.threads) as self.pool,  # starts a thread only when none is idle
            ThreadPoolExecutor(PASSWORD_THREADS, initializer=self.dedicate_thread) as self.password_pool,
            ThreadPoolExecutor(PROBE_THREADS) as self.probe_pool,
        ):
            self.pools = {Lane.LOOP: self.pool, Lane.POOL: self.pool, Lane.PASSWORDS: self.password_pool,
                          Lane.PROBES: self.probe_pool}  # fmt: skip
            while self.alive:
                self.turn()

    def turn(self) -> None:
        """Give the master a sign of life, handle events, and at each tick check deadlines and the end."""
        self.notify()
        self.watch_listeners()
        quiet = not self.open_count and self.ending_since == math.inf
        for key, _ in self.poller.select(QUIET_TICK_SECONDS if quiet else TICK_SECONDS):
            key.data(key.fileobj)
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + TICK_SECONDS
            if os.getppid() != self.ppid:  # the master is dead: stop, even while clients keep this worker busy
                self.handle_exit(signal.SIGTERM, None)
            if self.ending_since < math.inf:
                self.end(now)
            self.loop.close_overdue()

    # Connections

    def may_accept(self) -> bool:
        """True until the end begins, and for a second after SIGTERM; a replaced worker stops at once."""
        return time.monotonic() < self.ending_since + (STOP_SECONDS if shutting_down.is_set() else 0)

    def watch_listeners(self) -> None:
        """Start or stop accepting. While stopped, connections wait in the listeners' queues."""
        room = self.open_count < self.max_open
        accepting = room and self.may_accept() and time.monotonic() >= self.accept_again
        if accepting == self.accepting:
            return
        self.accepting = accepting
        for listener in self.sockets:
            if accepting:
                listener.setblocking(False)
                self.poller.register(listener, selectors.EVENT_READ, self.accept)
            else:
                self.poller.unregister(listener)

    def accept(self, listener: Any) -> bool:
        """Take one connection. False if none waits, or if accepting fails."""
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
        self.open_count += 1
        if self.open_count >= self.max_open:
            self.warn_seldom("%d connections are open: the longest idle make room", self.open_count)
            self.loop.make_room()
        self.loop.begin(conn)
        return True

    def admit(self, conn: Connection) -> bool:
        """Whether the client may have one more connection. Counts it if so."""
        trusted = self.settings.trusted_proxies
        if conn.address in trusted:
            return True
        conn.counted_as = network_of(client_address(conn.address, "", trusted)) or "unix"
        if self.connections_of.enter(self.number, conn.counted_as, MAX_PER_ADDRESS):
            return True
        self.warn_seldom(
            "connections of %s beyond %d are closed; if it is a proxy, TRUSTED_PROXIES must name it",
            conn.counted_as,
            MAX_PER_ADDRESS,
        )
        return False

    def pause_accepting(self, error: OSError) -> None:
        """Descriptors or memory have run out: close some connections, and accept again after a tick."""
        self.warn_seldom("cannot accept a connection: %s", error)
        self.accept_again = time.monotonic() + TICK_SECONDS
        self.loop.make_room(share=0.1)

    def forget(self, conn: Connection) -> None:
        self.open_count -= 1
        if conn.counted_as:
            self.connections_of.leave(self.number, conn.counted_as)

    def forget_connections(self) -> None:
        """In the master, after this worker's death: the configuration's `child_exit` calls it."""
        self.connections_of.end_worker(self.number)

    # Requests

    def run_request(self, conn: Connection, request: WholeRequest) -> None:
        """Run a request on the loop, or in a thread of its lane."""
        lane = self.lane_of(request)
        if lane is Lane.LOOP and not conn.ran_inline:
            conn.ran_inline = True  # once between two reads: pipelined requests must not delay other clients
            return self.loop.answer(conn, keep=self.handle(conn, request))
        self.loop.forget(conn)
        claim = threading.Lock()
        try:
            self.pools[lane].submit(self.run_in_thread, conn, request, claim)
        except RuntimeError as error:
            # No thread can start. The request is in the pool's queue even so, and a busy thread may take it.
            self.warn_seldom("cannot run a request: %s", error)
            if claim.acquire(blocking=False):
                self.refuse(conn, request, Unavailable())
                self.loop.answer(conn, keep=False)

    def lane_of(self, request: WholeRequest) -> Lane:
        """The lane that the application's `router` gives; the pool for an application without one."""
        router = getattr(self.wsgi, "router", None)
        if router is None:
            return Lane.POOL
        method, target, _ = request.head[0].decode().split(" ")
        return lane_of(router, method, target, Lane.POOL if self.settings.postgres_url else Lane.LOOP)

    def dedicate_thread(self) -> None:
        """In each thread of the password pool: its writes wait for the whole `busy_timeout`."""
        database = getattr(self.wsgi, "database", None)
        if isinstance(database, GroupCommitDatabase):
            database.dedicate_thread()

    def run_in_thread(self, conn: Connection, request: WholeRequest, claim: threading.Lock) -> None:
        """In a pool thread. The first to acquire `claim` acts: this thread answers, or the loop refuses."""
        if not claim.acquire(blocking=False):
            return
        keep = False
        try:
            keep = self.handle(conn, request)
            with suppress(OSError):  # the loop will get the same error, and close the connection
                conn.flush()
        finally:
            self.finished.append((conn, keep))
            os.write(self.PIPE[1], b".")

    def handle(self, conn: Connection, request: WholeRequest) -> bool:
        """Put the answer into the connection. True if it may take another request. Any thread. Raises nothing."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.ending_since = min(self.ending_since, time.monotonic())
        keep = self.ending_since == math.inf and request.keeps_connection
        try:
            for piece in answer(self.wsgi, request, conn.client, conn.server, keep):
                conn.put(piece)
        except BaseException as error:  # KeyboardInterrupt too: the application must not end the worker
            self.refuse(conn, request, InternalError(), error)
            return False
        return keep

    def refuse(
        self, conn: Connection, request: WholeRequest, error: AppError, cause: BaseException | None = None
    ) -> None:
        conn.put(refusal(error, request.head, conn.address, self.settings.cors_origins, cause))

    def finish_requests(self, pipe: int) -> None:
        """Send the answers of the pools' threads. Threads and signals wake the loop by a byte in the pipe."""
        os.read(pipe, 4096)
        for _ in range(len(self.finished)):
            conn, keep = self.finished.popleft()
            self.loop.answer(conn, keep)

    # The end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM: `/readyz` answers 503, running requests finish, idle connections are closed after a second."""
        if not shutting_down.is_set():
            shutting_down.set()
            self.ending_since = time.monotonic()

    def end(self, now: float) -> None:
        """One tick of the end, which lasts until no connection is open or graceful_timeout has passed."""
        self.loop.hasten_idle(self.ending_since, STOP_SECONDS)
        if not self.may_accept():
            if shutting_down.is_set():
                self.close_listeners()
            if not self.open_count or now > self.ending_since + self.cfg.graceful_timeout:
                self.alive = False

    def close_listeners(self) -> None:
        """Accept the connections in the queue first: the last process to close a listener would reset them."""
        self.watch_listeners()
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):
                if self.open_count >= self.max_open or not self.accept(listener):
                    break
            listener.close()
        self.sockets: list[Any] = []

    def warn_seldom(self, message: str, *values: object) -> None:
        """Log each message at most once a minute, so that clients cannot fill the log."""
        now = time.monotonic()
        if now >= self.warn_again.get(message, 0):
            self.warn_again[message] = now + WARN_SECONDS
            log.warning(message, *values)
