"""One client's connection: its socket, what came and is no whole request yet, what goes and is not yet taken."""

import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from backend.server.request_reader import RequestReader

KERNEL_BYTES = 128 * 1024  # not yet on the wire
MAX_PARTS = 64  # of an answer that go to the kernel at once
MAX_UNSENT = 64 * 1024 * 1024  # bytes of one answer that wait for its client


Step = Callable[["Connection"], None]


class Connection:
    """What gunicorn takes for its own connection (`client`, `server`, `parser`) and, in `sock`, for the socket.

    An application's answer comes in through `sendall`, mostly in a pool thread. That never waits for the client: what
    the kernel does not take at once stays in `unsent`, and the loop sends it later. Everything else is the loop's. No
    connection is with both at a time.
    """

    def __init__(self, stream: socket.socket, client: Any, server: Any) -> None:
        self.stream, self.client, self.server = stream, client, server
        self.sock = self
        self.address = str(client[0]) if isinstance(client, tuple) else ""  # empty for a unix socket's peer
        self.counted_as = ""  # by the cap on connections
        self.reader = RequestReader()
        self.parser: Any = None  # gunicorn's, of the request that runs
        self.head: list[bytes] = []  # of the request that runs
        self.answering = False  # some of its answer has gone out
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

    def sendall(self, data: bytes) -> None:
        """Keep until `flush`, or send what is much. ConnectionError as from `flush_answer`."""
        self.answering = True
        self.put(data)
        if self.unsent_size > KERNEL_BYTES:
            self.flush_answer()

    def flush_answer(self) -> None:
        """Send what the kernel takes. ConnectionError if the client is gone, or leaves too much of its answer."""
        try:
            self.flush()
        except OSError as error:
            raise ConnectionAbortedError("the client is gone") from error
        if self.unsent_size > MAX_UNSENT:
            raise ConnectionAbortedError("the client does not take its answer")

    def put(self, data: bytes) -> None:
        """Keep for later."""
        self.unsent.append(memoryview(data))
        self.unsent_size += len(data)

    def flush(self) -> None:
        """Send what the kernel takes now. OSError if the client is gone."""
        while self.unsent:
            try:
                sent = self.stream.sendmsg(islice(self.unsent, MAX_PARTS))
            except BlockingIOError:
                return
            self.unsent_size -= sent
            while self.unsent and sent >= len(self.unsent[0]):
                sent -= len(self.unsent.popleft())
            if sent:
                self.unsent[0] = self.unsent[0][sent:]

    def limit_kernel(self, patience: float) -> None:
        """On TCP: the kernel is handed little at a time, and gives it up if it is not taken within `patience` seconds.

        Else a client that never reads costs the 3 MB of work and memory that the kernel's own buffer grows to.
        """
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))

    def reset(self) -> None:
        """Have `close` drop what is not yet sent and tell the client that its answer is not whole."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def shutdown(self, how: int) -> None:
        """Gunicorn gives up half an answer and would linger in its thread; refused, for the loop does that."""
        raise OSError(errno.ENOTCONN, "the loop closes this connection")

    def close(self) -> None:
        """For gunicorn, after `shutdown`: nothing, for the same reason."""
