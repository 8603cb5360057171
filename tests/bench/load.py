"""The load: clients on loopback, each of which waits for its answer before the next request (a closed loop).

A process for each share of the connections, two in all, so that the clients are never the bottleneck. The connections
are already open and spread over the server's workers (`Server.connect`); otherwise one worker may accept them all.
"""

import gc
import socket
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import TypeAlias

from tests.bench.client import Clients, Outcome, WrongAnswer
from tests.bench.jobs import Job

PROCESSES = 2
Share: TypeAlias = tuple[tuple[str, int], Sequence[socket.socket]]  # a server's address, and connections to it


def run(shares: Sequence[Share], job: Job, seconds: float) -> Outcome:
    """Send requests on all connections for `seconds`, then close. Raises WrongAnswer, also if a server is gone."""
    context = get_context("fork")  # the connections go along
    clients = []
    try:
        for number, share in enumerate(shares):
            ours, theirs = context.Pipe()
            process = context.Process(target=_client, args=(*share, job, seconds, number, theirs), daemon=True)
            process.start()
            theirs.close()
            clients.append((process, ours))
        return _merged([pipe.recv() for _, pipe in clients])
    except EOFError:
        raise WrongAnswer("a client has died; why stands above") from None
    finally:
        for process, pipe in clients:
            process.kill()
            process.join()
            pipe.close()
        for _, connections in shares:
            for connection in connections:
                connection.close()


def _client(
    address: tuple[str, int], connections: Sequence[socket.socket], job: Job, seconds: float, number: int, pipe: Pipe
) -> None:
    """The life of a client process."""
    gc.disable()  # a collection would pause all clients of the process
    start = number * len(job.requests) // PROCESSES  # so that connections start with different requests
    requests = cycle([*job.requests[start:], *job.requests[:start]])
    pipe.send(Clients(address, connections, job, requests).ask(seconds))


def _merged(outcomes: Sequence[Outcome]) -> Outcome:
    merged = Outcome(outcomes[0].seconds, sum((outcome.answers for outcome in outcomes), Counter()))
    for outcome in outcomes:
        merged.waits += outcome.waits
    return merged
