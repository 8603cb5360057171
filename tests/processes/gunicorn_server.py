"""A real gunicorn with our worker and configuration on a free port, and clients that speak raw bytes to it."""

import contextlib
import json
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        """The error code of an envelope that is as it has to be."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["cache-control"] == "no-store"
        assert self.headers["x-content-type-options"] == "nosniff"
        assert self.headers["connection"] == "close"
        envelope = json.loads(self.body)
        assert set(envelope) == {"error", "meta"}
        assert set(envelope["error"]) == {"code", "message"}
        assert envelope["meta"]["requestId"] == self.headers["x-request-id"]
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", self.headers["x-request-id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", envelope["meta"]["timestamp"])
        return str(envelope["error"]["code"])


class Client:
    """One connection. Reads answers one by one, so that pipelined ones do not get lost."""

    def __init__(self, stream: socket.socket, seconds: float = 10) -> None:
        self.stream = stream
        self.stream.settimeout(seconds)
        self._buffer = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def send(self, data: bytes) -> "Client":
        self.stream.sendall(data)
        return self

    def read_answer(self, to_head: bool = False) -> Answer:
        """The next answer; EOFError if the server closes before it is whole."""
        head = self._take(lambda: self._buffer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self._buffer else None)
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(status_line.split()[1])
        length = 0 if to_head or status == 100 else int(headers["content-length"])
        return Answer(status, headers, self._take(lambda: length if len(self._buffer) >= length else None))

    def ends(self) -> bool:
        """Wait for the server to close; True if nothing came before that."""
        return not self._buffer and not self.stream.recv(1)

    def _take(self, wanted: Callable[[], int | None]) -> bytes:
        while (length := wanted()) is None:
            data = self.stream.recv(65536)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken


class Server:
    """A running gunicorn; `log` has what it says."""

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

    def probe(self) -> float:
        """Seconds that a well-behaved client waits for its answer."""
        began = time.monotonic()
        assert self.ask(GET % b"/").status == 200
        return time.monotonic() - began

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def gunicorn(log: Path, *options: str, descriptors: int = 0, bind: str = "", **environment: str) -> Iterator[Server]:
    """Run the server with the tiny application; one worker, four threads, a time-out of 1 s if not told else."""
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "4", "REQUEST_TIMEOUT_SECONDS": "1"} | environment
    settings["BIND"] = bind or "127.0.0.1:0"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", *options]
    command += ["tests.processes.tiny_application:application"]
    if descriptors:
        command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, stderr=output)
    try:
        wait_until(lambda: "Booting worker" in log.read_text() or process.poll() is not None)
        port = re.search(r"Listening at: \S+?:(\d+) ", log.read_text())
        yield Server(process, log, ("127.0.0.1", int(port[1])) if port else bind.removeprefix("unix:"))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        process.wait(20)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Raise this process's own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class End(NamedTuple):
    """How a connection ended: when (seconds of the monotonic clock), after which bytes, and whether by a reset."""

    time: float
    data: bytes
    reset: bool


def ends_of(clients: list[Client], seconds: float) -> list[End]:
    """Read all the connections to their ends; AssertionError if one is still open after so many seconds."""
    data = dict.fromkeys(clients, b"")
    ends: list[End] = []
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.stream, selectors.EVENT_READ, client)
        while selector.get_map():
            assert time.monotonic() < until, f"{len(selector.get_map())} connections are still open"
            for key, _ in selector.select(0.1):
                try:
                    received, reset = key.data.stream.recv(65536), False
                except ConnectionResetError:
                    received, reset = b"", True
                data[key.data] += received
                if not received:
                    selector.unregister(key.fileobj)
                    ends.append(End(time.monotonic(), data[key.data], reset))
    return ends
