"""The load: clients on loopback, each of which waits for its answer before it asks again (a closed loop).

Two processes share the connections, so that one core's worth of client is never what is measured: raw sockets, epoll,
requests encoded beforehand, some 10 µs of CPU a request. They are given connections that are open already, spread over
the server's workers (`Server.connect`), because left to itself one worker may accept them all.
"""

import gc
import re
import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe

PROCESSES = 2
CHUNK_BORDER = re.compile(rb"\r\n[0-9a-f]+\r\n")  # JSON has no line ends that it could be mistaken for
GRACE_SECONDS = 1.0  # for answers that are still awaited at the end


class WrongAnswer(Exception):
    """A good status over a body that is not what was asked for: whatever was measured, it was not this job."""


@dataclass(frozen=True)
class Job:
    """What the clients ask for, in turns; each one's first good answer must hold `marker` that often."""

    requests: Sequence[bytes]
    marker: bytes
    times: int


@dataclass
class Outcome:
    """What came of a load of so many seconds.

    `answers` counts by status those in time; "lost" are those that a closed connection or the end cut off. `waits` are
    of all answers and, for what got none, as long as the client has waited: milliseconds, in order. `cpu` is what the
    server has used, in seconds, and `memory` what each of its workers has then, in megabytes: who started it knows.
    """

    seconds: float
    answers: Counter[str] = field(default_factory=Counter)
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    cpu: float = 0.0
    memory: float = 0.0

    @property
    def good(self) -> int:
        return sum(count for status, count in self.answers.items() if status.startswith("2"))

    @property
    def refused(self) -> int:
        """Whatever was not answered with a 2xx."""
        return self.answers.total() - self.good

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds

    def percentile(self, share: float) -> float:
        return self.waits[min(len(self.waits) - 1, int(len(self.waits) * share))] if self.waits else 0.0


def run(address: tuple[str, int], connections: Sequence[socket.socket], job: Job, seconds: float) -> Outcome:
    """Ask on all connections for so long; closes them. Raises WrongAnswer, and OSError if the server is gone."""
    context = get_context("fork")  # the connections go along
    clients = []
    for number in range(min(PROCESSES, len(connections))):
        ours, theirs = context.Pipe()
        share = (address, connections[number::PROCESSES], job, seconds, number, theirs)
        process = context.Process(target=_client, args=share, daemon=True)
        process.start()
        theirs.close()
        clients.append((process, ours))
    try:
        return _merged([pipe.recv() for _, pipe in clients], seconds)
    except EOFError:
        raise WrongAnswer("a client has died; what it said is above") from None
    finally:
        for process, pipe in clients:
            process.kill()
            process.join()
            pipe.close()
        for connection in connections:
            connection.close()


def _merged(outcomes: Sequence[Outcome], seconds: float) -> Outcome:
    answers = sum((outcome.answers for outcome in outcomes), Counter[str]())
    return Outcome(seconds, answers, array("d", sorted(wait for outcome in outcomes for wait in outcome.waits)))


def _client(
    address: tuple[str, int], connections: list[socket.socket], job: Job, seconds: float, number: int, pipe: Pipe
) -> None:
    """The life of one client process."""
    gc.disable()  # it would pause all clients at once
    start = number * len(job.requests) // PROCESSES  # not all the same at the same time
    requests = cycle([*job.requests[start:], *job.requests[:start]])
    pipe.send(_Clients(address, connections, job, requests).ask(seconds))


class _Conversation:
    """One connection: what was asked and when, what has come so far."""

    __slots__ = ("began", "checked", "part", "request", "stream")

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.request = self.part = b""
        self.began, self.checked = 0.0, False


class _Clients:
    """All connections of one process."""

    def __init__(
        self, address: tuple[str, int], connections: Sequence[socket.socket], job: Job, requests: Iterator[bytes]
    ) -> None:
        self._address, self._job, self._requests = address, job, requests
        self._poll = select.epoll()
        self._conversations: dict[int, _Conversation] = {}
        for connection in connections:
            self._register(_Conversation(connection))

    def ask(self, seconds: float) -> Outcome:
        outcome = Outcome(seconds)
        answers, waits, clock = outcome.answers, outcome.waits, time.perf_counter
        now = clock()
        end = now + seconds
        for conversation in list(self._conversations.values()):
            self._ask(conversation, clock())
        while self._conversations and now < end + GRACE_SECONDS:
            for descriptor, _ in self._poll.poll(0.05):
                conversation = self._conversations[descriptor]
                data = self._received(conversation)
                now = clock()
                if data is not None and not data:  # not whole yet
                    continue
                waits.append((now - conversation.began) * 1000)
                if now < end or data is None:
                    answers[str(data[9:12], "ascii") if data else "lost"] += 1
                if data and not conversation.checked:
                    self._check(conversation, data)
                if now < end:
                    self._ask(conversation, now)
                else:
                    self._forget(conversation)
            now = clock()
        answers["lost"] += len(self._conversations)
        waits.extend((now - conversation.began) * 1000 for conversation in self._conversations.values())
        return outcome

    def _ask(self, conversation: _Conversation, now: float) -> None:
        conversation.request, conversation.began = next(self._requests), now
        try:
            conversation.stream.send(conversation.request)
        except OSError:  # closed since its last answer, as a server may
            self._reconnect(conversation)
            conversation.stream.send(conversation.request)

    def _received(self, conversation: _Conversation) -> bytes | None:
        """A whole answer; nothing while it is not whole; None if the connection was closed, and is another now."""
        try:
            data = conversation.stream.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._reconnect(conversation)
            return None
        data = conversation.part + data
        if is_whole(data):
            conversation.part = b""
            return data
        conversation.part = data
        return b""

    def _check(self, conversation: _Conversation, answer: bytes) -> None:
        if answer[9:10] == b"2":
            conversation.checked = True
            whole = CHUNK_BORDER.sub(b"", answer)
            if whole.count(self._job.marker) != self._job.times:
                raise WrongAnswer(f"not {self._job.times} times {self._job.marker!r} in {whole[:500]!r}")

    def _reconnect(self, conversation: _Conversation) -> None:
        self._forget(conversation)
        conversation.stream.close()
        conversation.part = b""
        conversation.stream = socket.create_connection(self._address, timeout=5)
        self._register(conversation)

    def _forget(self, conversation: _Conversation) -> None:
        self._poll.unregister(conversation.stream)
        del self._conversations[conversation.stream.fileno()]

    def _register(self, conversation: _Conversation) -> None:
        conversation.stream.setblocking(False)
        conversation.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._conversations[conversation.stream.fileno()] = conversation
        self._poll.register(conversation.stream, select.EPOLLIN)


def is_whole(answer: bytes) -> bool:
    """Whether the answer is there to its end; nothing comes after it, for nothing more was asked."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower() + b"\r"
    at = head.find(b"\r\ncontent-length: ")
    if at < 0:
        return answer.endswith(b"\r\n0\r\n\r\n")  # in chunks
    return len(answer) >= end + 4 + int(head[at + 18 : head.find(b"\r", at + 18)])
