"""A real gunicorn on a free port, with the production worker and configuration, and crowds of clients for it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from backend.infrastructure.migrations import migrate
from tests.production.raw_client import Answer, Client
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
DEADLINE = 60  # seconds for a request: a client that waits for a hostile one gives up before that
TINY = "tests.production.tiny_application:application"
LONG_STOP = ("-c", "python:tests.production.long_stop")
LONG_LINGER = ("-c", "python:tests.production.long_linger")
GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
if sys.argv[2] == "True":
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Server:
    """A running gunicorn; `log` is the file of its standard error."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, address: Any) -> None:
        self.process, self.log, self.address = process, log, address

    def connect(self, source: str = "", receive_buffer: int = 0) -> Client:
        stream = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        if source:
            stream.bind((source, 0))
        if receive_buffer:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client = Client(stream)
        try:
            stream.connect(self.address)
        except OSError:
            stream.close()
            raise
        return client

    def ask(self, request: bytes, to_head: bool = False) -> Answer:
        """The answer to one request on a connection of its own."""
        with self.connect() as client:
            return client.send(request).read_answer(to_head)

    def probe(self) -> None:
        """Well-behaved clients, one after the other, are answered. Raises TimeoutError for one that is not."""
        assert [self.ask(GET % b"/").status for _ in range(3)] == [200] * 3

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_for_workers(self, count: int, others_than: Collection[int] = ()) -> list[int]:
        """Wait for `count` workers that listen, none of them one of `others_than`; their process ids."""
        wait_until(lambda: len(pids := self.workers()) == count and not set(pids) & set(others_than)
                   and all(map(listens, pids)))  # fmt: skip
        return self.workers()

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Only this worker takes connections: the others are stopped."""
        others = [pid for pid in self.workers() if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The only worker gets what happens in the block at once: until then no deadline begins."""
        (worker,) = self.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)


@contextlib.contextmanager
def gunicorn(
    log: Path,
    *options: str,
    descriptors: int = 0,
    bind: str = "",
    application: str = TINY,
    errors: int | None = None,
    listener: socket.socket | None = None,
    managed: bool = True,
    python: str = sys.executable,
    folder: Path = ROOT,
    **environment: str,
) -> Iterator[Server]:
    """Run the server with the tiny application; by default one worker, four threads, a time-out of 1 s.

    A `listener` is passed as descriptor 3; with `managed`, LISTEN_FDS names it, as under a service manager. Standard
    error is `log`, or the descriptor `errors`; then the test must copy its first lines into `log`.
    """
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "4", "REQUEST_TIMEOUT_SECONDS": str(DEADLINE)}
    settings |= {"BIND": bind or "127.0.0.1:0", "DATABASE_URL": f"sqlite:///{log.parent / 'app.db'}"} | environment
    migrate(log.parent / "app.db")  # the tiny application does not use it, but the start checks its schema
    command = [python, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", *options]
    command += [application]
    if descriptors:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    if listener:
        command = [sys.executable, "-c", PASS_ON, str(listener.fileno()), str(managed), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | settings,
            stderr=errors or output,
            start_new_session=True,
            pass_fds=[listener.fileno()] if listener else [],
        )
    try:
        # Two processes log these lines, each in a thread of its own: either may come first.
        wait_until(
            lambda: (
                all(said in log.read_text() for said in ("Listening at", "Booting worker"))
                or process.poll() is not None
            )
        )
        port = re.search(r"Listening at: \S+?:(\d+) ", log.read_text())
        yield Server(process, log, ("127.0.0.1", int(port[1])) if port else bind.removeprefix("unix:"))
    finally:
        # SIGTERM would take a second.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def listens(worker: int) -> bool:
    """Whether the worker accepts connections: its poller watches more than its own pipe."""
    with contextlib.suppress(OSError):
        for info in Path(f"/proc/{worker}/fdinfo").iterdir():
            if info.read_text().count("tfd:") > 1:
                return True
    return False


def open_crowd(
    stack: contextlib.ExitStack, server: Server, count: int, opening: bytes, receive_buffer: int = 0
) -> list[Client]:
    """`count` connections, 50 from each address, that have each sent `opening`."""
    return [
        stack.enter_context(server.connect(f"127.0.{count}.{1 + index // 50}", receive_buffer)).send(opening)
        for index in range(count)
    ]
