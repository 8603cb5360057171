"""`/metrics`: what the service counts, in Prometheus text, summed over all workers.

A counter in one worker is wrong on two: a scrape reaches either, and the graph jumps between their counts.
prometheus_client therefore keeps each worker's numbers in memory-mapped files and adds them up at a scrape. But to
count one request in them (a counter, a histogram, in flight) takes 14 µs, a ninth of a cached read.

Here a request only appends its facts to a queue. Every PUBLISH_SECONDS one thread of each worker counts them and adds
the sums to prometheus_client's files (`metrics_folder.py`), with what cache and server have counted meanwhile. Both
together take 2 µs a request in process; over HTTP, two workers answer 2 to 3 % fewer of the cheapest requests. A scrape
publishes for its own worker, adds up the files, and samples what nothing counts (`metrics_samples.py`).

Promised:
- Counters never go back until the last master ends, for scrapes at least KEPT_SECONDS apart: also not when workers are
  reloaded or killed, or the master is upgraded (SIGUSR2). A killed worker loses the counts of its last PUBLISH_SECONDS.
- The number of series does not depend on clients: a label is a route's template, a known method, or a constant of this
  code. Other methods count as `other`, requests that match no route as `none`.
- A scrape never waits for the write lock. A flood of scrapes costs one scrape in KEPT_SECONDS.

Not promised: that the counters of one scrape are of one moment; counts over several machines, which Prometheus adds up.
Without PROMETHEUS_MULTIPROC_DIR, which `backend/gunicorn_conf.py` sets, the counts are those of one process.
"""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from app import Tools
from backend.errors import AppError, RateLimited, Unauthorized
from backend.infrastructure.cache import LruCache
from backend.infrastructure.disk_space import size_of
from backend.infrastructure.recent import Recent
from backend.operations.in_flight import InFlight
from backend.operations.metrics_families import Families, Tally
from backend.operations.metrics_folder import metrics_folder
from backend.operations.metrics_samples import Samples
from backend.settings import Settings
from backend.web.handler import responds
from backend.web.middleware import Handler
from backend.web.request import Request
from backend.web.response import Response
from backend.web.router import Endpoint

T = TypeVar("T")

PUBLISH_SECONDS = 0.25
QUEUED = 50_000  # requests, or writes: ten times what a worker does in a second; beyond it the oldest are lost
STOP_SECONDS = 1.0
KEPT_SECONDS = 1.0  # for which the text of a scrape is sent again
METHODS = {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"}

log = logging.getLogger(__name__)


class AllWorkers:
    """A collector of prometheus_client: the sums over the files of all workers, living and dead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Leaves out files that are gone, and empty ones, which a worker has just made: the library fails on them."""
        files = [str(file) for file in self._folder.glob("*.db") if size_of(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


class Metrics:
    """Thread-safe. Made in the worker, after the fork. Its thread runs from `start()` to `stop()`."""

    def __init__(self, settings: Settings, tools: Tools, in_flight: InFlight, refused: Mapping[int, int]) -> None:
        self._cache, self._open, self._refused = tools.cache, in_flight, refused
        self._answered: deque[tuple[str, Endpoint | None, int, float]] = deque(maxlen=QUEUED)
        self._refusals: deque[tuple[Counter, str]] = deque(maxlen=QUEUED)  # the family and its label
        self._written: deque[tuple[float, float]] = deque(maxlen=QUEUED)
        self._publishing = threading.Lock()  # guards `_published`, and only its holder takes from the queues
        self._published: dict[Counter, int] = {}  # how much of each total
        own, folder = CollectorRegistry(), metrics_folder().path()
        self._families = Families(own)
        self._exposed = CollectorRegistry()
        self._exposed.register(AllWorkers(folder) if folder else own)
        sqlite_file = None if settings.postgres_url else settings.database_path
        self._exposed.register(Samples(sqlite_file, tools.database, tools.passwords))
        self._recent_text = Recent(self._text, KEPT_SECONDS, tools.clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish_often, name="metrics", daemon=True)

    # What the application calls.

    def middleware(self, next_handler: Handler) -> Handler:
        """Count each request."""
        answered = self._answered.append

        def handle(request: Request) -> Response:
            began = time.perf_counter()
            response = next_handler(request)
            answered((request.method, request.endpoint, response.status, time.perf_counter() - began))
            if request.error is not None:
                self._count_refusal(request, request.error)
            return response

        return handle

    def count_write(self, waited: float, held: float) -> None:
        """A listener of `Database.on_write`, in seconds. Raises nothing."""
        self._written.append((waited, held))

    @responds(200, media="text/plain")
    def get_metrics(self, request: Request) -> Response:
        """Counts and states of the service for Prometheus, summed over all workers. May be a second old."""
        return Response(200, self._recent_text(), CONTENT_TYPE_PLAIN_0_0_4)

    def start(self) -> None:
        """Publish from now on. Idempotent."""
        with self._publishing:
            if self._thread.ident is None:
                try:
                    self._thread.start()
                except (RuntimeError, MemoryError):  # this worker then publishes only when it is scraped
                    log.exception("cannot start the thread that publishes metrics")

    def stop(self) -> None:
        """Publish what is left. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def _count_refusal(self, request: Request, error: AppError) -> None:
        if isinstance(error, Unauthorized):
            self._refusals.append((self._families.auth_refusals, error.details["reason"]))
        if isinstance(error, RateLimited):
            refused = {count.policy.name for count in request.counts if count.result and not count.result.allowed}
            self._refusals.extend((self._families.limit_refusals, policy) for policy in refused)

    # How it publishes.

    def _publish_often(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stopping.wait(PUBLISH_SECONDS)
            try:
                self._publish()
            except Exception:
                log.exception("cannot publish metrics")

    def _publish(self) -> None:
        with self._publishing:
            self._publish_requests()
            self._publish_writes()
            self._families.in_flight.set(len(self._open))
            for counter, total in self._totals():
                counter.inc(total - self._published.get(counter, 0))
                self._published[counter] = total

    def _publish_requests(self) -> None:
        tallies: defaultdict[tuple[str, str, int], Tally] = defaultdict(Tally)
        for method, endpoint, status, seconds in _taken(self._answered):
            route = endpoint.route.path if endpoint else "none"
            tallies[method if method in METHODS else "other", route, status].add(seconds)
        for (method, route, status), tally in tallies.items():
            self._families.requests.labels(method, route, str(status)).inc(sum(tally.counts))
            self._families.durations.labels(method, route).add(tally)
        for family, label in _taken(self._refusals):
            family.labels(label).inc()

    def _publish_writes(self) -> None:
        waits, holds = Tally(), Tally()
        for waited, held in _taken(self._written):
            waits.add(waited)
            holds.add(held)
        self._families.lock_waits.add(waits)
        self._families.lock_holds.add(holds)

    def _totals(self) -> Iterator[tuple[Counter, int]]:
        """What others count in this process, and how far they have counted."""
        if isinstance(self._cache, LruCache):
            yield self._families.lookups.labels("hit"), self._cache.hits
            yield self._families.lookups.labels("miss"), self._cache.misses
            yield self._families.refused_fills, self._cache.refused
            yield self._families.coalesced, self._cache.coalesced
        for status, count in dict(self._refused).items():
            yield self._families.server_refusals.labels(str(status)), count

    def _text(self) -> bytes:
        self._publish()
        return generate_latest(self._exposed)


def _taken(queue: "deque[T]") -> list[T]:
    """Take out what is in the queue now; others may append meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]
