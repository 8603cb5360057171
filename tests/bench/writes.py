"""Durable transfers, with few clients and with many: how many a second, how long each waits, how many are refused."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from tests.bench.client import Outcome
from tests.bench.contenders import FASTAPI, FLASK, POCKETBASE, contenders
from tests.bench.jobs import TRANSFER
from tests.bench.measure import OURS, Figure, Size, interleaved
from tests.bench.over_gunicorn import WARM_UP_SECONDS, values
from tests.bench.raw_transfers import RawTransfers
from tests.bench.service import folder

GROUP = "writes"
RAW = "raw sqlite3"
CLIENTS = (1, 8, 16, 64)
SHARE = 0.7  # of the seconds that a load of reads takes: there are more of these
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
        contenders(path, OURS, FLASK, FASTAPI, POCKETBASE) as servers,
    ):
        for server in servers.values():
            server.load(TRANSFER, size.clients, WARM_UP_SECONDS)
        for clients in CLIENTS:
            loads = {
                name: partial(server.load, TRANSFER, clients, size.seconds * SHARE) for name, server in servers.items()
            }
            outcomes = interleaved({**loads, RAW: partial(raw.load, size.seconds * SHARE / 2)}, size.rounds)
            for name, (unit, measure) in MEASURES.items():
                yield Figure(GROUP, f"{name}, {clients} clients", unit, values(outcomes, measure))
