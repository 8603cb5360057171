"""The service on PostgreSQL beside itself on SQLite, and beside the peers on PostgreSQL: reads, transfers, orders.

All use one server on this machine, which is durable as installed (`fsync`), each a database of its own. All orders pay
one account, the shop's, so they show what a hot row costs. The two hosts are two services with two workers each, on one
database; they share this machine's cores with it, so they show what a second host costs, not what it brings.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import psycopg

from tests.bench.client import Outcome
from tests.bench.contenders import FASTAPI, FLASK, contenders, fastapi, flask, ours, two_hosts
from tests.bench.jobs import ORDER, READS, TRANSFER
from tests.bench.measure import OURS, Figure, Size, interleaved
from tests.bench.over_gunicorn import WARM_UP_SECONDS, values
from tests.bench.servers import Server
from tests.bench.service import folder
from tests.postgres_server import DURABLE, available, server, url_of

GROUP = "on PostgreSQL"
OURS_THERE, FLASK_THERE, FASTAPI_THERE = (f"{name}, PostgreSQL" for name in (OURS, FLASK, FASTAPI))
TWO_HOSTS = f"{OURS_THERE}, two hosts"
MEASURES: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    "requests/s": ("/s", lambda outcome: outcome.rate),
    "p50": ("ms", lambda outcome: outcome.percentile(0.5)),
    "p99": ("ms", lambda outcome: outcome.percentile(0.99)),
    "refused": ("", lambda outcome: outcome.refused),
}
CLIENTS = (1, 16, 64)  # that transfer


def figures(size: Size) -> Iterator[Figure]:
    """None on a machine without PostgreSQL."""
    if not available():
        return
    with ExitStack() as stack:
        path, url = stack.enter_context(folder()), stack.enter_context(server(DURABLE))
        starts = {OURS_THERE: ours, TWO_HOSTS: two_hosts, FLASK_THERE: flask, FASTAPI_THERE: fastapi}
        more = {
            name: _in_a_database(url, f"bench_{number}", start) for number, (name, start) in enumerate(starts.items())
        }
        servers = stack.enter_context(contenders(path, OURS, *more, more=more))
        for job, clients in (*((job, size.clients) for job in READS), *((TRANSFER, clients) for clients in CLIENTS)):
            yield from _compared(job, clients, size, servers)
        yield from _compared(ORDER, 64, size, {name: servers[name] for name in (OURS, OURS_THERE, TWO_HOSTS)})


def _in_a_database(
    url: str, name: str, start: Callable[..., AbstractContextManager[Server]]
) -> Callable[[Path], AbstractContextManager[Server]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return partial(start, postgres=url_of(name, url))


def _compared(job: str, clients: int, size: Size, servers: dict[str, Server]) -> Iterator[Figure]:
    for contender in servers.values():
        contender.load(job, clients, WARM_UP_SECONDS)
    seconds = size.seconds / 2
    outcomes = interleaved(
        {name: partial(one.load, job, clients, seconds) for name, one in servers.items()}, size.rounds
    )
    for name, (unit, measure) in MEASURES.items():
        yield Figure(GROUP, f"{job}, {clients} clients: {name}", unit, values(outcomes, measure))
