"""Clients that send raw bytes and see how their connection ends."""

import json
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def code(self) -> str:
        """The error code; asserts that envelope and headers are those of every refusal."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["cache-control"] == "no-store"
        assert self.headers["x-content-type-options"] == "nosniff"
        assert self.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert self.headers["connection"] == "close"
        envelope = json.loads(self.body)
        assert set(envelope) == {"error", "meta"}
        assert set(envelope["error"]) == {"code", "message"}
        assert envelope["meta"]["requestId"] == self.headers["x-request-id"]
        assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", self.headers["x-request-id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", envelope["meta"]["timestamp"])
        return str(envelope["error"]["code"])


class Client:
    """One connection. Answers are read one by one; bytes after an answer are kept for the next."""

    def __init__(self, stream: socket.socket, seconds: float = 30) -> None:
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
        """Wait for the server to close; whether nothing came before that."""
        return not self._buffer and not self.stream.recv(1)

    def _take(self, wanted: Callable[[], int | None]) -> bytes:
        while (length := wanted()) is None:
            data = self.stream.recv(65536)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken


def connect(address: Any) -> Client:
    """A new connection to a TCP address or, if it is a string, a unix socket. Raises OSError."""
    stream = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client = Client(stream)
    try:
        stream.connect(address)
    except OSError:
        stream.close()
        raise
    return client


class End(NamedTuple):
    """The end of a connection: its time (monotonic clock), the bytes received before it, and whether it was a reset."""

    time: float
    data: bytes
    reset: bool


def ends_of(clients: list[Client], seconds: float) -> list[End]:
    """Read every connection to its end; AssertionError if one is still open after `seconds`."""
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


def closed(clients: list[Client]) -> list[Client]:
    """The clients whose connection the server has closed."""

    def is_closed(client: Client) -> bool:
        before = client.stream.gettimeout()
        client.stream.setblocking(False)
        try:
            return not client.stream.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            client.stream.settimeout(before)

    return [client for client in clients if is_closed(client)]
