"""The metrics that a worker writes: their names, labels and texts. Those that a scrape samples: `metrics_samples.py`.

No label has a value that a client chooses. What can be 0 is there from the start: a series that begins at 1 has no
increase, so its first refusal would start no alert.
"""

from bisect import bisect_left

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from backend.errors import Unauthorized
from backend.operations.metrics_folder import metrics_folder

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
REFUSED_BY_THE_SERVER = (400, 408, 411, 413, 414, 431, 500, 503)

if metrics_folder().worker:  # by default, prometheus_client names files by process id
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
    """A histogram that takes many observations at once. (`observe` takes one, and writes twice for it.)"""

    def add(self, tally: Tally) -> None:
        self._sum.inc(tally.total)
        for bucket, count in zip(self._buckets, tally.counts, strict=True):
            if count:
                bucket.inc(count)


class Families:
    """Thread-safe. In multi-process mode their values lie in the worker's files; otherwise `registry` has them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> TalliedHistogram:
            return TalliedHistogram(name, text, labels, buckets=BOUNDS, registry=registry)

        self.requests = counter("http_requests", "Requests answered.", "method", "route", "status")
        self.durations = histogram(
            "http_request_duration_seconds", "Time that the application took to answer.", "method", "route"
        )
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self.server_refusals = counter(
            "http_server_refusals", "Requests that the server refused itself, such as malformed ones.", "status"
        )
        self.auth_refusals = counter("auth_refusals", "401s by reason.", "reason")
        self.limit_refusals = counter("rate_limit_refusals", "429s by policy.", "policy")
        self.lookups = counter("cache_lookups", "Lookups in the cache by result.", "result")
        self.refused_fills = counter("cache_refused_fills", "Loads that were not stored, since a write overtook them.")
        self.coalesced = counter("cache_coalesced_loads", "Misses that shared the load of another.")
        self.lock_waits = histogram("write_lock_wait_seconds", "Time that transactions waited until they could write.")
        self.lock_holds = histogram("write_lock_hold_seconds", "Time that transactions held the write lock.")
        self._begin_at_0()

    def _begin_at_0(self) -> None:
        for reason in Unauthorized.REASONS:
            self.auth_refusals.labels(reason)
        for policy in ("default", "auth"):
            self.limit_refusals.labels(policy)
        for status in REFUSED_BY_THE_SERVER:
            self.server_refusals.labels(str(status))
