"""One process of clients; each has one connection and at most one request under way.

Raw sockets, epoll and pre-encoded requests, so that a client costs little beside the server.
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
CHUNK_BORDER = re.compile(rb"\r\n[0-9a-f]+\r\n")  # compact JSON has no newline


class WrongAnswer(Exception):
    """A 2xx whose body is wrong, so the measurement is of something else than the job."""


@dataclass
class Outcome:
    """The result of a load of `seconds`.

    `answers` counts the answers in time by status, and as "lost" those cut off by a closed connection. `waits` are in
    milliseconds, one for each answer; an answer that is still missing GRACE_SECONDS after the end counts with the time
    waited so far. `cpu` (seconds used by the server) and `memory` (megabytes of each worker) are set by `Server.load`.
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
        """Requests whose answer was not a 2xx, or was cut off."""
        return self.answers.total() - self.good

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    def percentile(self, share: float) -> float:
        """The wait in milliseconds that this share of requests did not exceed; 0.0 without requests."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else 0.0


class Conversation:
    """One connection: the bytes of the present answer so far, and when its request was sent."""

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
        """Send requests for `seconds`, then close. Raises WrongAnswer, and OSError if the server is gone."""
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
        """Read; once the answer is complete, record it and send the next request."""
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
        """A complete answer; b"" while it is incomplete; None if the connection was closed and has been reopened."""
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
    """Whether the answer is complete. Nothing follows it, because no further request was sent."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[: end + 2].lower()
    at = head.find(b"\r\ncontent-length: ")
    if at < 0:
        return answer.endswith(b"\r\n0\r\n\r\n")  # in chunks
    return len(answer) >= end + 4 + int(head[at + 18 : head.find(b"\r", at + 18)])
