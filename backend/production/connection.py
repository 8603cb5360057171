"""One client's connection, and which connections a worker closes first when it holds too many.

A connection holds what its client has sent and is not yet a whole request, and what it has not yet taken of an answer.
No call on it blocks.
"""

import heapq
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from backend.production.request_reader import RequestReader

KERNEL_BYTES = 128 * 1024  # that the kernel may hold of an answer without having sent them

Step = Callable[["Connection"], None]


class Connection:
    """A socket, the requests that it brings and the answer that it takes away.

    One thread at a time uses a connection: the loop's, or the pool thread that runs its request. What the kernel does
    not take at once stays in `unsent`, and the loop sends it later.
    """

    def __init__(self, stream: socket.socket, client: Any, server: Any) -> None:
        self.stream, self.client, self.server = stream, client, server
        self.address = str(client[0]) if isinstance(client, tuple) else ""  # empty for a unix socket's peer
        self.counted_as = ""  # in AddressCounts; empty if it is not counted
        self.reader = RequestReader()
        self.unsent: deque[memoryview] = deque()
        self.unsent_size = 0
        self.keep = False  # for another request after this answer
        self.waits_since = self.deadline = 0.0  # seconds of the monotonic clock
        self.events = 0  # that the poller watches for
        self.ran_inline = False  # the loop has run a request of this connection since it last received
        self.step: Step  # that the loop takes at the next event
        stream.setblocking(False)

    def allow(self, seconds: float) -> None:
        """Give the client this long, from now on, for what comes next."""
        self.waits_since = time.monotonic()
        self.deadline = self.waits_since + seconds

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def size(self) -> int:
        """Bytes that the worker holds for this client, about."""
        return self.reader.size + self.unsent_size

    @property
    def idle(self) -> bool:
        """Whether it is between two requests, before the first or after the last."""
        return not self.reader.begun and not self.unsent

    def has_sent(self) -> bool:
        """Whether bytes of the client wait in the kernel."""
        try:
            return bool(self.stream.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has come, or the client is gone
            return False

    def put(self, data: bytes) -> None:
        """Append to what is to be sent."""
        self.unsent.append(memoryview(data))
        self.unsent_size += len(data)

    def flush(self) -> None:
        """Send what the kernel takes now. Raises OSError if the client is gone."""
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
        """On TCP: let the kernel hold little that is unsent, and drop what is not acknowledged in `patience` seconds.

        Without this, a client that never reads costs 3 MB: the size to which the kernel's send buffer grows.
        """
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))

    def reset(self) -> None:
        """Make `close` drop what is unsent and send a reset, so that the client knows its answer is not whole."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def longest_waiting(connections: Iterable[Connection], count: int) -> list[Connection]:
    """Up to `count` connections, those that have waited longest for their client first.

    The newest are the least likely to be hostile. An idle connection whose next request has just arrived comes last.
    """
    longest = heapq.nsmallest(8 * count, connections, key=attrgetter("waits_since"))
    longest.sort(key=lambda conn: conn.idle and conn.has_sent())
    return longest[:count]


def surplus(connections: Iterable[Connection], limit: int) -> list[Connection]:
    """The connections to close so that the others hold no more than `limit` bytes; the longest waiting first."""
    holders = sorted((conn for conn in connections if conn.size), key=attrgetter("waits_since"))
    excess = sum(conn.size for conn in holders) - limit
    chosen: list[Connection] = []
    while excess > 0:
        conn = holders[len(chosen)]
        excess -= conn.size
        chosen.append(conn)
    return chosen
