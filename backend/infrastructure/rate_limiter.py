"""Rate limiter: GCRA, with one number per subject in a bounded dict.

GCRA, the generic cell rate algorithm (ITU-T I.371; brandur.org/rate-limiting explains it), stores one number per
subject: its *arrival*, the time at which its whole quota is available again. A hit moves the arrival one `interval`
(window / quota) later, starting from now if it has passed. A hit that would move it beyond now + window is refused and
moves nothing. So a burst of `quota` hits passes at once, then one hit passes per interval. No timer resets anything: an
arrival that has passed means the same as no arrival.

A full dict drops the eighth of its subjects whose whole quota is back soonest. A flood of new subjects therefore evicts
subjects that have used little, its own above all, and not a subject that is being held back.

The count is exact over the threads of one process. It is not shared: N workers allow N times the quota, and a restart
forgets all counts. Production keeps the arrivals in memory that all workers share (production/rate_limiter.py).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

SECOND = 1_000_000_000  # in nanoseconds, the unit of all times here except those of a result


@dataclass(frozen=True)
class Policy:
    """`quota` requests in `window` seconds; each name has its own count. Raises ValueError if no request could pass."""

    name: str
    quota: int
    window: float

    def __post_init__(self) -> None:
        if self.quota < 1 or self.interval < 1:
            raise ValueError(f"rate limit {self.name!r}: {self.quota} requests in {self.window} seconds")

    @cached_property
    def interval(self) -> int:
        """What one request costs, in nanoseconds."""
        return int(self.window * SECOND) // self.quota

    @cached_property
    def burst(self) -> int:
        """What the whole quota costs, in nanoseconds: the window, less what `interval` was rounded down by."""
        return self.interval * self.quota


class RateLimitResult(NamedTuple):
    """The state of one subject under one policy."""

    allowed: bool
    remaining: int  # how many more hits would pass now
    reset_after: float  # seconds until the whole quota is back
    retry_after: float  # seconds until a hit can pass; 0.0 if `allowed`


# (policy, arrival, or now if it has passed, now) → (new arrival, result)
Step = Callable[[Policy, int, int], tuple[int, RateLimitResult]]


class RateLimiter:
    """Thread-safe. Remembers `capacity` subjects at most. `clock` counts nanoseconds and never goes back."""

    def __init__(self, capacity: int = 1 << 16, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock
        self._capacity = capacity
        self._arrivals: dict[tuple[str, str], int] = {}  # by name of the policy and subject
        self._lock = threading.Lock()

    def hit(self, policy: Policy, subject: str) -> RateLimitResult:
        """Count one request of `subject`, if it is allowed: a refused request counts nothing."""
        return self._update(policy, subject, _take)

    def peek(self, policy: Policy, subject: str) -> RateLimitResult:
        """The state now: `allowed` if a hit could pass. Counts nothing."""
        return self._update(policy, subject, lambda policy, arrival, now: (arrival, look(policy, arrival, now)))

    def refund(self, policy: Policy, subject: str, since: int) -> RateLimitResult:
        """Take back an allowed hit that was made at `since` or later, by `clock`; the state after it.

        The part of the hit that has become available again since then is not given back twice.

        To count failures only, hit before the attempt and refund after a success. To peek before the attempt and hit
        after a failure would let any number of simultaneous attempts pass.
        """

        def give_back(policy: Policy, arrival: int, now: int) -> tuple[int, RateLimitResult]:
            still_counted = max(0, since + policy.interval - now)
            arrival = max(now, arrival - still_counted)
            return arrival, look(policy, arrival, now)

        return self._update(policy, subject, give_back)

    def _update(self, policy: Policy, subject: str, step: Step) -> RateLimitResult:
        """Replace the subject's arrival by the one that `step` returns, atomically."""
        key = policy.name, subject
        with self._lock:
            arrival = self._arrivals.get(key, 0)
            now = self.clock()
            moved, result = step(policy, max(arrival, now), now)
            if moved <= now:
                self._arrivals.pop(key, None)
            else:
                if key not in self._arrivals and len(self._arrivals) >= self._capacity:
                    self._make_room()
                self._arrivals[key] = moved
        return result

    def _make_room(self) -> None:
        """Drop an eighth at once: sorting 65,536 subjects takes 15 ms, which is 2 µs for each subject dropped."""
        by_arrival = sorted(self._arrivals, key=self._arrivals.__getitem__)
        for key in by_arrival[: max(1, self._capacity // 8)]:
            del self._arrivals[key]


def look(policy: Policy, arrival: int, now: int) -> RateLimitResult:
    """The state at `now`, nanoseconds like `arrival`, which has not passed: `allowed` if a hit could pass."""
    free = now + policy.burst - arrival
    wait = max(0, policy.interval - free)
    return RateLimitResult(wait == 0, free // policy.interval, (arrival - now) / SECOND, wait / SECOND)


def _take(policy: Policy, arrival: int, now: int) -> tuple[int, RateLimitResult]:
    moved = arrival + policy.interval
    beyond = moved - (now + policy.burst)
    if beyond > 0:
        return arrival, RateLimitResult(False, 0, (arrival - now) / SECOND, beyond / SECOND)
    return moved, RateLimitResult(True, -beyond // policy.interval, (moved - now) / SECOND, 0.0)
