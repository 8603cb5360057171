"""One client's connection, and which connections a worker closes first when it has too many.

A connection holds the bytes that are not yet a whole request, and the part of the answer that is not yet sent. No call
on it blocks.
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

KERNEL_BYTES = 128 * 1024  # of an answer that the kernel may hold unsent

Step = Callable[["Connection"], None]


class Connection:
    """A socket, the bytes of its next request and the unsent bytes of its answer.

    One thread at a time uses a connection: the loop's, or the pool thread that runs its request. Bytes that the kernel
    does not take at once stay in `unsent`, and the loop sends them later.
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
        """Set the deadline of the next wait to this many seconds from now."""
        self.waits_since = time.monotonic()
        self.deadline = self.waits_since + seconds

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def size(self) -> int:
        """About how many bytes the worker holds for this client."""
        return self.reader.size + self.unsent_size

    @property
    def idle(self) -> bool:
        """Whether no request has begun and no answer is unsent."""
        return not self.reader.begun and not self.unsent

    def has_sent(self) -> bool:
        """Whether the kernel has bytes from the client."""
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

    def limit_kernel(self, timeout: float) -> None:
        """On TCP: limit the kernel's unsent bytes, and drop a connection that acknowledges none for `timeout` seconds.

        Without this, a client that never reads costs 3 MB: the size to which the kernel's send buffer grows.
        """
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))

    def reset(self) -> None:
        """Make `close` drop unsent bytes and send a reset, which tells the client that its answer is not whole."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def longest_waiting(connections: Iterable[Connection], count: int) -> list[Connection]:
    """Up to `count` connections, the longest waiting first.

    The newest are the least likely to be hostile. An idle connection whose next request has just arrived comes last.
    """
    longest = heapq.nsmallest(8 * count, connections, key=attrgetter("waits_since"))
    longest.sort(key=lambda conn: conn.idle and conn.has_sent())
    return longest[:count]


def surplus(connections: Iterable[Connection], limit: int) -> list[Connection]:
    """The connections to close so that the others hold at most `limit` bytes, the longest waiting first."""
    holders = sorted((conn for conn in connections if conn.size), key=attrgetter("waits_since"))
    excess = sum(conn.size for conn in holders) - limit
    chosen: list[Connection] = []
    while excess > 0:
        conn = holders[len(chosen)]
        excess -= conn.size
        chosen.append(conn)
    return chosen
