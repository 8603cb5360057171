"""A rate limiter in memory that all processes of one machine share: exact, bounded, and without a server.

GCRA, the generic cell rate algorithm (ITU-T I.371; brandur.org/rate-limiting tells it well), needs one number a
subject: its *arrival*, the time at which the whole quota will be back. A hit moves it `interval` = window / quota
later, beginning at now if it has passed. A hit that would move it beyond now + window is refused and moves nothing.
So a burst of `quota` passes at once, then one every interval, and nothing is ever swept: an arrival that has passed
means the same as no arrival.

The arrivals lie in an anonymous shared mapping of fixed size, made before the fork: a hash table in buckets of eight
ways, each bucket eight keys and then eight arrivals. A key that is not in its bucket takes the way with the least
arrival. If that has passed, nothing is lost: whoever is evicted had the whole quota back. If all eight are still to
come, the subject nearest to its end is forgotten, which is the one that has used least: a flood of new subjects
evicts its own, not the one that is being held back. A hit keeps a way alive for one interval more, so hits a second
times interval bounds the ways alive: 5,000 a second under 10 a minute make 30,000 of the 262,144 there are (4 MiB),
and then one new subject in 190,000 meets a full bucket.

What is to be counted only if it fails takes its hit before it is tried, and gives it back if it succeeds: a count that
was looked at before and raised after a failure would let any number pass that are tried at the same moment.

A hit locks its bucket alone, for a thread that has the lock but waits for its interpreter would hold up everybody.
A worker may be killed between any two stores: of a new way the old arrival is wiped first, then the key is written,
then the arrival, each in one aligned 64-bit store. What is left is a count without that hit, never a strange arrival;
should one be there all the same (beyond now + window), it reads as now.
"""

import hashlib
import math
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from backend.errors import RateLimited
from backend.infrastructure.byte_locks import ByteLocks

SECOND = 1_000_000_000
WAYS = 8
BUCKET = 2 * WAYS  # words of 64 bits


@dataclass(frozen=True)
class Policy:
    """`quota` requests in `window` seconds; each name counts apart. Raises ValueError where that means nothing."""

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
        """What the quota costs, in nanoseconds: the window, rounded so as to give none away."""
        return self.interval * self.quota


class RateLimitResult(NamedTuple):
    """The answer to one hit. (A NamedTuple takes half the time of a frozen dataclass.)"""

    allowed: bool
    remaining: int  # as many more would pass now
    reset_after: float  # seconds until the whole quota is back
    retry_after: float  # seconds until a hit can pass; 0.0 when this one did


class RateLimiter:
    """Make it before the fork: all processes that then have it share the count. `clock` counts nanoseconds."""

    def __init__(self, slots: int = 1 << 18, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._buckets = max(1, slots // WAYS)
        self._words = memoryview(mmap.mmap(-1, self._buckets * BUCKET * 8)).cast("Q")
        self._hash = hashlib.blake2b(digest_size=8, key=os.urandom(16))  # nobody can choose whom to collide with
        self._locks = ByteLocks()
        self.clock = clock

    def hit(self, policy: Policy, subject: str) -> RateLimitResult:
        """Count one request of `subject`; a refused one counts nothing. Safe from any thread, in microseconds."""
        return self._locked(policy, subject, self._take)

    def peek(self, policy: Policy, subject: str) -> RateLimitResult:
        """What a hit would be told but for itself: `allowed` if it could pass now. Counts nothing."""
        return self._locked(policy, subject, self._state)

    def refund(self, policy: Policy, subject: str, since: int) -> RateLimitResult:
        """Give back an allowed hit that was made at `since` or later, by `clock`; the state after it.

        What may have come back by itself since then is not given twice. So the hit has cost no more than it would have
        cost a count that stood still meanwhile; and a worker killed before the refund leaves the hit counted.
        """
        return self._locked(policy, subject, lambda policy, slot: self._give_back(policy, slot, since))

    def _locked(
        self, policy: Policy, subject: str, change: Callable[[Policy, int], RateLimitResult]
    ) -> RateLimitResult:
        key = self._key_of(policy.name, subject)
        bucket = key % self._buckets
        own = self._locks.own()
        try:
            own.lock(bucket)
            return change(policy, self._slot_of(key, bucket * BUCKET))
        finally:
            own.unlock(bucket)

    def _take(self, policy: Policy, slot: int) -> RateLimitResult:
        arrival, now = self._arrival(policy, slot)
        following = arrival + policy.interval
        beyond = following - (now + policy.burst)
        if beyond > 0:
            return RateLimitResult(False, 0, (arrival - now) / SECOND, beyond / SECOND)
        self._words[slot] = following
        return RateLimitResult(True, -beyond // policy.interval, (following - now) / SECOND, 0.0)

    def _state(self, policy: Policy, slot: int) -> RateLimitResult:
        arrival, now = self._arrival(policy, slot)
        free = now + policy.burst - arrival
        wait = max(0, policy.interval - free)
        return RateLimitResult(not wait, free // policy.interval, (arrival - now) / SECOND, wait / SECOND)

    def _give_back(self, policy: Policy, slot: int, since: int) -> RateLimitResult:
        arrival, now = self._arrival(policy, slot)
        self._words[slot] = max(now, arrival - max(0, since + policy.interval - now))
        return self._state(policy, slot)

    def _arrival(self, policy: Policy, slot: int) -> tuple[int, int]:
        """The arrival, or now if that has passed or cannot be; and now."""
        arrival, now = self._words[slot], self.clock()
        return (arrival if now < arrival <= now + policy.burst else now), now

    def _slot_of(self, key: int, bucket: int) -> int:
        """The word with the arrival of `key`. (In an empty way key and arrival are 0, which is true of 0.)"""
        arrivals = bucket + WAYS
        keys = self._words[bucket:arrivals].tolist()
        if key in keys:
            return arrivals + keys.index(key)
        times = self._words[arrivals : arrivals + WAYS].tolist()
        way = times.index(min(times))
        self._words[arrivals + way] = 0
        self._words[bucket + way] = key
        return arrivals + way

    def _key_of(self, name: str, subject: str) -> int:
        hashed = self._hash.copy()
        hashed.update(f"{name}\0{subject}".encode("utf-8", "surrogatepass"))
        return int.from_bytes(hashed.digest(), "little")


class Count:
    """One subject's count under a policy, for one request; `result` is the limiter's last, None before the first."""

    def __init__(self, limiter: RateLimiter, policy: Policy, subject: str) -> None:
        self.policy = policy
        self.result: RateLimitResult | None = None
        self._limiter = limiter
        self._subject = subject
        self._hit_at = 0

    def hit(self) -> None:
        """Count the request. Raises RateLimited."""
        self._hit_at = self._limiter.clock()
        self._note(self._limiter.hit(self.policy, self._subject))

    def peek(self) -> None:
        """Count nothing. Raises RateLimited if a hit could not pass."""
        self._note(self._limiter.peek(self.policy, self._subject))

    def refund(self) -> None:
        """Give the hit back."""
        self.result = self._limiter.refund(self.policy, self._subject, self._hit_at)

    def _note(self, result: RateLimitResult) -> None:
        self.result = result
        if not result.allowed:
            raise RateLimited(max(1, math.ceil(result.retry_after)))


@cache
def shared_limiter() -> RateLimiter:
    """The one of this process and its children: gunicorn's master makes it, so it outlives workers and reloads."""
    return RateLimiter()
