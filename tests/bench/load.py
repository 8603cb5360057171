"""The load: clients on loopback, each of which waits for its answer before it asks again (a closed loop).

Two processes share the connections, so that what a client costs is never what is measured. The connections are open
already and spread over the server's workers (`Server.connect`): left to itself, one worker may accept them all.
"""

import gc
import socket
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe

from tests.bench.client import Clients, Outcome, WrongAnswer
from tests.bench.jobs import Job

PROCESSES = 2


def run(address: tuple[str, int], connections: Sequence[socket.socket], job: Job, seconds: float) -> Outcome:
    """Ask on all connections for so long; closes them. Raises WrongAnswer, also if the server is gone."""
    context = get_context("fork")  # the connections go along
    clients = []
    try:
        for number in range(min(PROCESSES, len(connections))):
            ours, theirs = context.Pipe()
            share = (address, connections[number::PROCESSES], job, seconds, number, theirs)
            process = context.Process(target=_client, args=share, daemon=True)
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
        for connection in connections:
            connection.close()


def _client(
    address: tuple[str, int], connections: list[socket.socket], job: Job, seconds: float, number: int, pipe: Pipe
) -> None:
    """The life of a client process."""
    gc.disable()  # it would pause all clients at once
    start = number * len(job.requests) // PROCESSES  # not all for the same at the same time
    requests = cycle([*job.requests[start:], *job.requests[:start]])
    pipe.send(Clients(address, connections, job, requests).ask(seconds))


def _merged(outcomes: Sequence[Outcome]) -> Outcome:
    merged = Outcome(outcomes[0].seconds, sum((outcome.answers for outcome in outcomes), Counter()))
    for outcome in outcomes:
        merged.waits += outcome.waits
    return merged
