"""`/metrics`: what the service counts, in Prometheus text, summed over all workers.

A counter in one worker is wrong on two: a scrape reaches either, and the graph jumps between their counts.
prometheus_client therefore keeps each worker's numbers in memory-mapped files and adds them up at a scrape. But to
count one request in them (a counter, a histogram, in flight) takes 14 µs, a ninth of a cached read.

Here a request only appends its facts to a queue. Every PUBLISH_SECONDS one thread of each worker counts them and adds
the sums to prometheus_client's files (`metrics_folder.py`), with what caches and server have counted meanwhile. A
scrape publishes for its own worker, adds up the files, and samples what nothing counts (`metrics_samples.py`).

Promised:
- Counters never go back while the master, or one that it was upgraded to by SIGUSR2, lives; for scrapes at least
  KEPT_SECONDS apart. A killed worker loses PUBLISH_SECONDS of its counts.
- The number of series does not depend on clients: a label is a route's template, a known method, or a constant of this
  code. Other methods count as `other`, requests that match no route as `none`.
- A scrape never waits for the write lock. A flood of scrapes costs one scrape in KEPT_SECONDS.

Not promised: that the counters of one scrape are of one moment; counts over several machines, which Prometheus adds up.
Without PROMETHEUS_MULTIPROC_DIR, which `backend/gunicorn_conf.py` sets, the counts are those of one process.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from app import Tools
from backend.errors import AppError, RateLimited, Unauthorized
from backend.infrastructure.cache import LruCache
from backend.infrastructure.recent import Recent
from backend.operations.in_flight import InFlight
from backend.operations.metrics_folder import metrics_folder
from backend.operations.metrics_samples import Samples
from backend.settings import Settings
from backend.web.handler import responds
from backend.web.middleware import Handle
from backend.web.request import Request
from backend.web.response import Response
from backend.web.router import Endpoint

PUBLISH_SECONDS = 0.25
QUEUED = (
    50_000  # requests or writes, ten times what a worker does in a second: if its thread fails, the oldest are lost
)
STOP_SECONDS = 1.0
KEPT_SECONDS = 1.0  # for which the text of a scrape is sent again
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
METHODS = {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"}

log = logging.getLogger(__name__)

if metrics_folder().worker:  # the default names files by process id
    values.ValueClass = values.MultiProcessValue(lambda: metrics_folder().worker)


class Tally:
    """Durations that are published together: how many in each bucket, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class TalliedHistogram(Histogram):
    """A histogram that takes many observations at once: `observe` takes one, and writes twice for it."""

    def add(self, tally: Tally) -> None:
        self._sum.inc(tally.total)
        for bucket, count in zip(self._buckets, tally.counts, strict=True):
            if count:
                bucket.inc(count)


class AllWorkers:
    """A collector of prometheus_client: the sums over the files of all workers, living and dead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Leaves out a file that is still empty, since a worker has just made it: the library fails on it."""
        files = [str(file) for file in self._folder.glob("*.db") if _size(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


class Metrics:
    """Thread-safe. Made in the worker, after the fork. Its thread runs from `start()` to `stop()`."""

    def __init__(self, settings: Settings, tools: Tools, in_flight: InFlight, refused: Mapping[int, int]) -> None:
        self._cache, self._open, self._refused = tools.cache, in_flight, refused
        self._answered: deque[tuple[str, Endpoint | None, int, float]] = deque(maxlen=QUEUED)
        self._written: deque[tuple[float, float]] = deque(maxlen=QUEUED)
        self._publishing = threading.Lock()  # guards `_published`, and only its holder takes from the queues
        self._published: dict[Counter, int] = {}  # how much of each total
        self._own = CollectorRegistry()
        self._make_metrics(self._own)
        self._exposed = CollectorRegistry()
        folder = metrics_folder().path()
        self._exposed.register(AllWorkers(folder) if folder else self._own)
        self._exposed.register(Samples(settings.database_path, tools.database, tools.passwords))
        self._recent_text = Recent(self._text, KEPT_SECONDS, tools.clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish_often, name="metrics", daemon=True)

    # What the application calls.

    def middleware(self, next_handler: Handle) -> Handle:
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
                self._thread.start()

    def stop(self) -> None:
        """Publish what is left. Idempotent."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    # How it counts.

    def _make_metrics(self, registry: CollectorRegistry) -> None:
        labels = ["method", "route"]
        self._answers = Counter("http_requests", "Requests answered.", [*labels, "status"], registry=registry)
        self._durations = TalliedHistogram(
            "http_request_duration_seconds", "Time to answer, without that for reading and sending.", labels,
            buckets=BOUNDS, registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "http_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self._server_refusals = Counter(
            "http_server_refusals", "Requests that the server refused before routing.", ["status"], registry=registry
        )
        self._auth_refusals = Counter("auth_refusals", "401s by reason.", ["reason"], registry=registry)
        self._limit_refusals = Counter("rate_limit_refusals", "429s by policy.", ["policy"], registry=registry)
        self._lookups = Counter("cache_lookups", "Lookups in the cache.", ["result"], registry=registry)
        self._refused_fills = Counter(
            "cache_refused_fills", "Loads not stored: a write overtook them.", registry=registry
        )
        self._coalesced = Counter("cache_coalesced_loads", "Misses that shared another's load.", registry=registry)
        self._lock_waits, self._lock_holds = (
            TalliedHistogram(f"write_lock_{what}_seconds", text, buckets=BOUNDS, registry=registry)
            for what, text in (
                ("wait", "Time that transactions waited for the write lock, those that got it."),
                ("hold", "Time that transactions held the write lock."),
            )
        )
        for reason in Unauthorized.REASONS:  # a series that begins at 1 has no increase
            self._auth_refusals.labels(reason)
        for policy in ("default", "auth"):
            self._limit_refusals.labels(policy)
        for status in (400, 408, 411, 413, 414, 431, 500, 503):
            self._server_refusals.labels(str(status))

    def _count_refusal(self, request: Request, error: AppError) -> None:
        if isinstance(error, Unauthorized):
            self._auth_refusals.labels(error.details["reason"]).inc()
        if isinstance(error, RateLimited):
            for policy in {count.policy.name for count in request.counts if count.result and not count.result.allowed}:
                self._limit_refusals.labels(policy).inc()

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
            self._in_flight.set(len(self._open))
            for counter, total in self._totals():
                counter.inc(total - self._published.get(counter, 0))
                self._published[counter] = total

    def _publish_requests(self) -> None:
        tallies: defaultdict[tuple[str, str, int], Tally] = defaultdict(Tally)
        for _ in range(len(self._answered)):
            method, endpoint, status, seconds = self._answered.popleft()
            route = endpoint.route.path if endpoint else "none"
            tallies[method if method in METHODS else "other", route, status].add(seconds)
        for (method, route, status), tally in tallies.items():
            self._answers.labels(method, route, str(status)).inc(sum(tally.counts))
            self._durations.labels(method, route).add(tally)

    def _publish_writes(self) -> None:
        waits, holds = Tally(), Tally()
        for _ in range(len(self._written)):
            waited, held = self._written.popleft()
            waits.add(waited)
            holds.add(held)
        self._lock_waits.add(waits)
        self._lock_holds.add(holds)

    def _totals(self) -> Iterator[tuple[Counter, int]]:
        """What others count in this process, and how far they have counted."""
        if isinstance(self._cache, LruCache):
            yield self._lookups.labels("hit"), self._cache.hits
            yield self._lookups.labels("miss"), self._cache.misses
            yield self._refused_fills, self._cache.refused
            yield self._coalesced, self._cache.coalesced
        for status, count in dict(self._refused).items():
            yield self._server_refusals.labels(str(status)), count

    def _text(self) -> bytes:
        self._publish()
        return generate_latest(self._exposed)


def _size(file: Path) -> int:
    """In bytes; 0 for a file that was removed meanwhile, since its worker is dead."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
