"""One process of clients: a connection each, and never more than one request of each under way.

Raw sockets, epoll and requests that are encoded already, so that the client costs little beside the server.
"""

import re
import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.bench.jobs import Job

GRACE_SECONDS = 1.0
LOST = "lost"
CHUNK_BORDER = re.compile(rb"\r\n[0-9a-f]+\r\n")  # JSON has no line ends that it could be mistaken for


class WrongAnswer(Exception):
    """A good status over a body that is not what was asked for: whatever was measured, it was not this job."""


@dataclass
class Outcome:
    """What came of a load of so many seconds.

    `answers` counts by status those in time, and as "lost" those that a closed connection cut off. `waits` are
    milliseconds: of all answers and, for those that had not come GRACE_SECONDS after the end, as long as the client
    has waited. `cpu`, the seconds that the server has used, and `memory`, the megabytes of each of its workers, are
    put in by who knows its processes.
    """

    seconds: float
    answers: Counter[str] = field(default_factory=Counter)
    waits: "array[float]" = field(default_factory=lambda: array("d"))  # (no array[float] at run time before 3.12)
    cpu: float = 0.0
    memory: float = 0.0

    @property
    def good(self) -> int:
        return sum(count for status, count in self.answers.items() if status[0] == "2")

    @property
    def refused(self) -> int:
        """Those that were answered with something else than a 2xx, or cut off."""
        return self.answers.total() - self.good

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    def percentile(self, share: float) -> float:
        """The wait that this share of all was not longer than; 0.0 if there was none."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else 0.0


class Conversation:
    """One connection: what came of the present answer so far, and when that was asked for."""

    __slots__ = ("began", "checked", "part", "stream")

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.part = b""
        self.began = 0.0
        self.checked = False


class Clients:
    """All connections of one process. `requests` never ends."""

    def __init__(
        self, address: tuple[str, int], connections: Sequence[socket.socket], job: Job, requests: Iterator[bytes]
    ) -> None:
        self._address, self._job, self._requests = address, job, requests
        self._poll = select.epoll()
        self._conversations: dict[int, Conversation] = {}
        for connection in connections:
            self._add(Conversation(connection))

    def ask(self, seconds: float) -> Outcome:
        """Ask for so long; closes the connections. Raises WrongAnswer, and OSError if the server is gone."""
        outcome, clock = Outcome(seconds), time.perf_counter
        end = clock() + seconds
        for conversation in list(self._conversations.values()):
            self._ask(conversation)
        while self._conversations and clock() < end + GRACE_SECONDS:
            for descriptor, _ in self._poll.poll(0.05):
                self._take(self._conversations[descriptor], outcome, end)
        for conversation in list(self._conversations.values()):
            outcome.waits.append((clock() - conversation.began) * 1000)
            self._close(conversation)
        return outcome

    def _take(self, conversation: Conversation, outcome: Outcome, end: float) -> None:
        """Read what has come; when the answer is whole, put it down and ask for the next."""
        answer = self._received(conversation)
        if answer is not None and not answer:
            return
        now = time.perf_counter()
        outcome.waits.append((now - conversation.began) * 1000)
        if not answer:
            outcome.answers[LOST] += 1
        elif now < end:
            outcome.answers[str(answer[9:12], "ascii")] += 1
        if answer and not conversation.checked:
            self._check(conversation, answer)
        if now < end:
            self._ask(conversation)
        else:
            self._close(conversation)

    def _received(self, conversation: Conversation) -> bytes | None:
        """A whole answer; nothing while it is not whole; None if the connection was closed, and is another now."""
        try:
            data = conversation.stream.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._reconnect(conversation)
            return None
        data = conversation.part + data
        whole = is_whole(data)
        conversation.part = b"" if whole else data
        return data if whole else b""

    def _ask(self, conversation: Conversation) -> None:
        request = next(self._requests)
        conversation.began = time.perf_counter()
        try:
            conversation.stream.send(request)
        except OSError:  # closed since its last answer, as a server may
            self._reconnect(conversation)
            conversation.stream.send(request)

    def _check(self, conversation: Conversation, answer: bytes) -> None:
        if answer[9:10] == b"2":
            conversation.checked = True
            whole = CHUNK_BORDER.sub(b"", answer)
            if whole.count(self._job.marker) != self._job.times:
                raise WrongAnswer(f"not {self._job.times} times {self._job.marker!r} in {whole[:500]!r}")

    def _reconnect(self, conversation: Conversation) -> None:
        self._close(conversation)
        conversation.part = b""
        conversation.stream = socket.create_connection(self._address, timeout=5)
        self._add(conversation)

    def _add(self, conversation: Conversation) -> None:
        conversation.stream.setblocking(False)
        conversation.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._conversations[conversation.stream.fileno()] = conversation
        self._poll.register(conversation.stream, select.EPOLLIN)

    def _close(self, conversation: Conversation) -> None:
        del self._conversations[conversation.stream.fileno()]
        self._poll.unregister(conversation.stream)
        conversation.stream.close()


def is_whole(answer: bytes) -> bool:
    """Whether the answer is there to its end; nothing comes after it, for nothing more was asked."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[: end + 2].lower()
    at = head.find(b"\r\ncontent-length: ")
    if at < 0:
        return answer.endswith(b"\r\n0\r\n\r\n")  # in chunks
    return len(answer) >= end + 4 + int(head[at + 18 : head.find(b"\r", at + 18)])
