"""One client's connection: its socket, what came and is no whole request yet, what goes and is not yet taken."""

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from backend.production.request_reader import RequestReader

KERNEL_BYTES = 128 * 1024  # not yet on the wire

Step = Callable[["Connection"], None]


class Connection:
    """Its answer may come from a pool thread. Nobody waits for the client to take it: what the kernel does not take at
    once stays in `unsent`, and the loop sends it later. Everything else is the loop's. No connection is with both at a
    time.
    """

    def __init__(self, stream: socket.socket, client: Any, server: Any) -> None:
        self.stream, self.client, self.server = stream, client, server
        self.address = str(client[0]) if isinstance(client, tuple) else ""  # empty for a unix socket's peer
        self.counted_as = ""  # by the cap on connections
        self.reader = RequestReader()
        self.unsent: deque[memoryview] = deque()
        self.unsent_size = 0
        self.keep = False  # for another request, once this answer is out
        self.waits_since = self.deadline = 0.0  # of what the loop waits for (monotonic clock)
        self.events = 0  # that the poller watches for
        self.ran_here = False  # the loop itself has run a request of it in this turn
        self.step: Step  # that it takes then
        stream.setblocking(False)

    def allow(self, seconds: float) -> None:
        """The client has so long from now on, for what comes next."""
        self.waits_since = time.monotonic()
        self.deadline = self.waits_since + seconds

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def size(self) -> int:
        """Bytes that this client has us hold, about."""
        return self.reader.size + self.unsent_size

    @property
    def idle(self) -> bool:
        """Between two requests, before the first one, or after the last."""
        return not self.reader.begun and not self.unsent

    def has_sent(self) -> bool:
        """Whether bytes of the client have come that are not yet read."""
        try:
            return bool(self.stream.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has come, or the client is gone
            return False

    def put(self, data: bytes) -> None:
        """Keep for later."""
        self.unsent.append(memoryview(data))
        self.unsent_size += len(data)

    def flush(self) -> None:
        """Send what the kernel takes now. OSError if the client is gone."""
        while self.unsent:
            try:
                sent = self.stream.send(self.unsent[0])
            except BlockingIOError:
                return
            self.unsent_size -= sent
            rest = self.unsent.popleft()[sent:]
            if rest:
                self.unsent.appendleft(rest)

    def limit_kernel(self, patience: float) -> None:
        """On TCP: the kernel is handed little at a time, and gives it up if it is not taken within `patience` seconds.

        Else a client that never reads costs the 3 MB of work and memory that the kernel's own buffer grows to.
        """
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))

    def reset(self) -> None:
        """Have `close` drop what is not yet sent and tell the client that its answer is not whole."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
