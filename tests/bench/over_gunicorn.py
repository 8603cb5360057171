"""Reads over real servers, of which one at a time is under load: CPU and latency of a request."""

from collections.abc import Callable, Iterator
from functools import partial

from tests.bench.client import Outcome
from tests.bench.contenders import BARE, CORE, FASTAPI, FLASK, POCKETBASE, contenders
from tests.bench.jobs import READS
from tests.bench.measure import OURS, Figure, Size, interleaved
from tests.bench.service import folder

GROUP = "over gunicorn"
WARM_UP_SECONDS = 0.2
MEASURES: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    "CPU": ("µs a request", lambda outcome: outcome.cpu * 1e6 / max(1, len(outcome.waits))),
    "requests/s": ("/s", lambda outcome: outcome.rate),
    "p50": ("ms", lambda outcome: outcome.percentile(0.5)),
    "p99": ("ms", lambda outcome: outcome.percentile(0.99)),
    "worst": ("ms", lambda outcome: outcome.percentile(1)),
}


def figures(size: Size) -> Iterator[Figure]:
    with folder() as path, contenders(path, OURS, CORE, BARE, FLASK, FASTAPI, POCKETBASE) as servers:
        for job in READS:
            for server in servers.values():
                server.load(job, size.clients, WARM_UP_SECONDS)
            loads = {name: partial(server.load, job, size.clients, size.seconds) for name, server in servers.items()}
            outcomes = interleaved(loads, size.rounds)
            for name, (unit, measure) in MEASURES.items():
                yield Figure(GROUP, f"{job}: {name}", unit, values(outcomes, measure))
        yield Figure(GROUP, "RSS a worker", "MB", values(outcomes, lambda outcome: outcome.memory))


def values(outcomes: dict[str, list[Outcome]], measure: Callable[[Outcome], float]) -> dict[str, list[float]]:
    return {name: [measure(outcome) for outcome in rounds] for name, rounds in outcomes.items()}
