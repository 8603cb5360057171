"""A rate limit that is none: multiplied by the workers, fooled by a header, and growing without end.

Catalogue: "Keep the times of each client's requests in a dict; the client is in `X-Forwarded-For`."

Goes wrong: A client writes into `X-Forwarded-For` what it likes, so each of its requests counts as another client's.
Each of these clients has an entry that no code deletes, so the dict grows until the process is killed. And each worker
has a dict of its own: with 4 workers a limit of 100 is 400. The core cures the first two faults; production all three.

Bitten: https://github.com/long2ice/fastapi-limiter/issues/9: a random header with each request passed any limit.
https://github.com/Kuadrant/limitador/issues/71: a store in memory grew without bound.
https://github.com/alisaifee/flask-limiter/issues/256: on a host with several workers, limits were exceeded.

Read: `backend/web/client_address.py`, `backend/infrastructure/rate_limiter.py`, and for several workers
`backend/production/rate_limiter.py`, which counts in memory that they share.

Exercise: Threads race in the dict, too. Let 20 threads call `is_allowed` with QUOTA = 10 and a barrier between its test
and its append: how many pass? Which line of the core's limiter prevents that?
"""

import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterable

from backend.infrastructure.rate_limiter import Policy, RateLimiter
from backend.settings import Limit
from tests.lessons import Stage, Verdict
from tests.lessons.servers import gthread
from tests.production.gunicorn_server import Server
from tests.production.real_service import connect_to, service

QUOTA, WINDOW, WORKERS = 100, 86_400, 4  # a day: no request comes back into the quota while the lesson runs
SENT = QUOTA + 20  # requests on one connection
ADDRESSES = 20_000
LIMITED = {"RATE_LIMIT_DEFAULT": f"{QUOTA}/{WINDOW}"}
KEPT = ("--keep-alive", "600")  # seconds: the server closes no connection between two requests

times = defaultdict(list)


def is_allowed(headers, peer):
    client = headers.get("X-Forwarded-For", peer)
    times[client] = [at for at in times[client] if at > time.time() - WINDOW]
    if len(times[client]) >= QUOTA:
        return False
    times[client].append(time.time())
    return True


def naive(stage: Stage) -> list[Verdict]:
    times.clear()
    passed = sum(is_allowed(headers, "127.0.0.1") for headers in forged())
    kept = kilobytes(lambda address: is_allowed({}, address))
    with gthread(stage, "app:create_app()", WORKERS, 4, *KEPT, **LIMITED) as server:
        return [fooled(passed), growing(*kept), multiplied("the core", server)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api(rate_limit_default=Limit(QUOTA, WINDOW))
    passed = sum(api.get("/products", headers=headers).status_code == 200 for headers in forged())
    limiter, policy = RateLimiter(capacity=4096), Policy("default", QUOTA, WINDOW)
    kept = kilobytes(lambda address: limiter.hit(policy, address))
    with service(stage.folder / "log", stage.database, *KEPT, WEB_CONCURRENCY=str(WORKERS), **LIMITED) as server:
        return [fooled(passed), growing(*kept), multiplied("production", server)]


def forged() -> Iterable[dict[str, str]]:
    return ({"X-Forwarded-For": f"10.0.0.{number}"} for number in range(SENT))


def fooled(passed: int) -> Verdict:
    return Verdict(passed <= QUOTA, passed, f"a forged header: limit {QUOTA}, {passed} of {SENT} passed")


def kilobytes(hit: Callable[[str], object]) -> tuple[float, float]:
    """The memory that the limiter holds after requests from so many addresses, and from twice as many."""
    tracemalloc.start()
    sizes = []
    for half in range(2):
        for number in range(ADDRESSES):
            hit(f"10.{half}.{number >> 8}.{number & 255}")
        sizes.append(tracemalloc.get_traced_memory()[0] / 1024)
    tracemalloc.stop()
    return sizes[0], sizes[1]


def growing(before: float, after: float) -> Verdict:
    says = f"{ADDRESSES:,} addresses fill {before:,.0f} KiB, {2 * ADDRESSES:,} fill {after:,.0f}"
    return Verdict(after < 1.5 * before, after, says)


def multiplied(name: str, server: Server) -> Verdict:
    """Send more than the quota to each worker."""
    passed = 0
    for worker in server.workers():
        (caller,) = connect_to(server, worker)
        with caller:
            passed += sum(caller.call("GET", "/products").status == 200 for _ in range(SENT))
    return Verdict(passed == QUOTA, passed, f"{name}, {WORKERS} workers: limit {QUOTA}, {passed} passed")
