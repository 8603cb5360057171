"""A receiver of Standard Webhooks on loopback, with answers that a test chooses."""

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def webhooks(port: int) -> dict[str, str]:
    """Environment variables of a service that sends its events to a receiver at this port of loopback."""
    return {
        "WEBHOOK_URLS": f"http://127.0.0.1:{port}/",
        "WEBHOOK_SECRET": f"whsec_{'test' * 8}",
        "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    }


@dataclass(frozen=True)
class Arrival:
    """One request."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, key: bytes) -> bool:
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


class Receiver:
    """`arrivals` has the requests; `answer` returns the status and headers of the reply, or writes raw bytes."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.answer: Callable[[Arrival, Any], tuple[int, dict[str, str]] | None] = lambda arrival, stream: (204, {})
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        arrival = Arrival(handler.path, {name.lower(): value for name, value in handler.headers.items()}, body)
        with self._lock:
            self.arrivals.append(arrival)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.answer(arrival, handler.wfile)
        finally:
            with self._lock:
                self.at_once -= 1
        handler.close_connection = True
        if answer:
            handler.send_response(answer[0])
            for name, value in answer[1].items():
                handler.send_header(name, value)
            handler.end_headers()


@contextlib.contextmanager
def receiving(tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[tuple[Receiver, int]]:
    """A running receiver, and its port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with contextlib.suppress(ConnectionError):
                receiver.take(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: Any) -> None:
            """Say nothing: clients hang up on purpose."""

    with Server((address, 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield receiver, server.server_address[1]
        server.shutdown()
        thread.join()
