"""Durable transfers with few and with many clients: rate, latency and refusals."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from tests.bench.client import Outcome
from tests.bench.contenders import CORE, FASTAPI, FLASK, POCKETBASE, contenders
from tests.bench.jobs import TRANSFER
from tests.bench.measure import OURS, QUICK, Figure, Size, interleaved
from tests.bench.over_gunicorn import WARM_UP_SECONDS, values
from tests.bench.raw_transfers import RawTransfers
from tests.bench.service import folder

GROUP = "writes"
RAW = "raw sqlite3"
CLIENTS, QUICK_CLIENTS = (1, 8, 16, 64), (1, 16, 64)
SHORTEST = 0.3  # seconds
MEASURES: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    "transfers/s": ("/s", lambda outcome: outcome.rate),
    "p50": ("ms", lambda outcome: outcome.percentile(0.5)),
    "p99": ("ms", lambda outcome: outcome.percentile(0.99)),
    "refused": ("", lambda outcome: outcome.refused),
}


def figures(size: Size) -> Iterator[Figure]:
    with (
        folder() as path,
        closing(RawTransfers(path)) as raw,
        contenders(path, OURS, CORE, FLASK, FASTAPI, POCKETBASE) as servers,
    ):
        for server in servers.values():
            server.load(TRANSFER, size.clients, WARM_UP_SECONDS)
        seconds = max(SHORTEST, size.seconds / 2)  # shorter than reads, of which there are fewer
        for clients in QUICK_CLIENTS if size == QUICK else CLIENTS:
            loads = {name: partial(server.load, TRANSFER, clients, seconds) for name, server in servers.items()}
            outcomes = interleaved({**loads, RAW: partial(raw.load, seconds / 2)}, size.rounds)
            for name, (unit, measure) in MEASURES.items():
                taken = values(outcomes, measure)
                if name != "transfers/s":  # the loop has no clients that could wait
                    del taken[RAW]
                yield Figure(GROUP, f"{name}, {clients} clients", unit, taken)
