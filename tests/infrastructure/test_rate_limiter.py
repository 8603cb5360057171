"""The rate limiter: what both versions promise in one process. (Over several: tests/production.)"""

import threading
import time
import tracemalloc
from random import Random

import pytest

from backend.infrastructure.rate_limiter import Policy, RateLimiter
from tests.wirings import limiter_class

DEFAULT = Policy("default", 300, 60)
AUTH = Policy("auth", 10, 60)
NEVER_BACK = Policy("never back", 300, 365 * 86400)  # one a day: nothing comes back while a test runs
SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kind(wiring: str) -> type[RateLimiter]:
    return limiter_class(wiring)


@pytest.fixture
def limiter(kind: type[RateLimiter], clock: Clock) -> RateLimiter:
    return kind(clock=clock)


@pytest.fixture
def small(kind: type[RateLimiter], clock: Clock) -> RateLimiter:
    """A limiter with room for eight subjects."""
    return kind(capacity=8, clock=clock)


def test_the_first_hit_leaves_all_but_one_and_that_comes_back_after_one_interval(limiter: RateLimiter) -> None:
    assert limiter.hit(DEFAULT, "a") == (True, 299, 0.2, 0.0)


def test_a_burst_of_exactly_the_quota_passes_at_once(limiter: RateLimiter) -> None:
    limit_results = [limiter.hit(AUTH, "a") for _ in range(11)]
    assert [result.allowed for result in limit_results] == [True] * 10 + [False]
    assert [result.remaining for result in limit_results] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    assert limit_results[9].reset_after == limit_results[10].reset_after == 60.0


def test_after_a_burst_one_hit_passes_each_interval(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(10):
        limiter.hit(AUTH, "a")
    for _ in range(20):
        clock.advance(6)
        assert limiter.hit(AUTH, "a").allowed
        assert not limiter.hit(AUTH, "a").allowed


def test_retry_after_is_exactly_when_the_next_hit_passes(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(10):
        limiter.hit(AUTH, "a")
    clock.advance(1.5)
    assert limiter.hit(AUTH, "a").retry_after == 4.5
    clock.now += round(4.5 * SECOND) - 1
    assert not limiter.hit(AUTH, "a").allowed
    clock.now += 1
    assert limiter.hit(AUTH, "a").allowed


def test_a_refused_hit_counts_nothing(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(1000):
        last = limiter.hit(AUTH, "a")
    assert last.retry_after == 6.0
    clock.advance(60)
    assert limiter.hit(AUTH, "a").remaining == 9


def test_a_peek_tells_the_state_and_counts_nothing(limiter: RateLimiter, clock: Clock) -> None:
    assert [limiter.peek(AUTH, "a") for _ in range(20)] == [(True, 10, 0.0, 0.0)] * 20
    for _ in range(10):
        limiter.hit(AUTH, "a")
    clock.advance(1.5)
    assert limiter.peek(AUTH, "a") == (False, 0, 58.5, 4.5)
    clock.advance(4.5)
    assert limiter.peek(AUTH, "a") == (True, 1, 54.0, 0.0)


def test_a_refund_gives_the_hit_back(limiter: RateLimiter, clock: Clock) -> None:
    for _ in range(9):
        limiter.hit(AUTH, "a")
    for _ in range(20):
        since = clock.now
        assert limiter.hit(AUTH, "a") == (True, 0, 60.0, 0.0)
        assert limiter.refund(AUTH, "a", since) == (True, 1, 54.0, 0.0)
    assert [limiter.hit(AUTH, "a").allowed for _ in range(2)] == [True, False]


def test_a_refund_does_not_give_what_has_come_back_already(limiter: RateLimiter, clock: Clock) -> None:
    """A hit older than its interval no longer counts; a refund of it would cancel another hit."""
    since = clock.now
    limiter.hit(AUTH, "a")
    clock.advance(7)
    limiter.hit(AUTH, "a")
    clock.advance(1)
    assert limiter.refund(AUTH, "a", since) == (True, 9, 5.0, 0.0)
    assert limiter.refund(AUTH, "b", since) == (True, 10, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_refunds_never_let_more_fail_than_without_what_succeeds(
    kind: type[RateLimiter], clock: Clock, seed: int
) -> None:
    """Attempts of random length: a limiter that sees the failures alone, and no refund, would allow all of them."""
    random, limiter, plain = Random(seed), kind(capacity=8, clock=clock), kind(capacity=8, clock=clock)
    under_way: list[tuple[int, int]] = []  # (end, beginning)
    failures = 0
    for _ in range(2000):
        clock.advance(random.expovariate(1.0))
        for end, since in [one for one in under_way if one[0] <= clock.now]:
            under_way.remove((end, since))
            limiter.refund(AUTH, "a", since)
        if limiter.hit(AUTH, "a").allowed:
            if random.random() < 0.7:
                under_way.append((clock.now + round(random.expovariate(0.2) * SECOND), clock.now))
            else:
                failures += 1
                assert plain.hit(AUTH, "a").allowed
    assert failures > 100


def test_subjects_and_policies_count_apart(limiter: RateLimiter) -> None:
    limiter.hit(AUTH, "a")
    assert limiter.hit(AUTH, "b").remaining == 9
    assert limiter.hit(DEFAULT, "a").remaining == 299
    assert limiter.hit(AUTH, "a").remaining == 8


def test_a_subject_may_be_any_text(limiter: RateLimiter) -> None:
    """Even a lone surrogate, which JSON can carry and UTF-8 cannot."""
    assert limiter.hit(AUTH, "\ud800@example.org").remaining == 9


def test_a_quota_that_does_not_divide_its_window_gives_not_one_request_too_many(limiter: RateLimiter) -> None:
    """70,000 in 10 ms: an interval is 142 ns and a fraction, and 422 fractions make three more requests."""
    odd = Policy("odd", 70_000, 0.01)
    assert sum(limiter.hit(odd, "a").allowed for _ in range(71_000)) == 70_000


@pytest.mark.parametrize(("quota", "window"), [(0, 60), (-1, 60), (10, 0), (10, -60), (2_000_000_000, 1)])
def test_an_invalid_policy_is_refused(quota: int, window: float) -> None:
    with pytest.raises(ValueError, match="rate limit 'x'"):
        Policy("x", quota, window)


def test_a_quota_may_be_one(limiter: RateLimiter, clock: Clock) -> None:
    once_a_minute = Policy("once a minute", 1, 60)
    assert limiter.hit(once_a_minute, "a") == (True, 0, 60.0, 0.0)
    clock.advance(59)
    assert limiter.hit(once_a_minute, "a") == (False, 0, 1.0, 1.0)
    clock.advance(1)
    assert limiter.hit(once_a_minute, "a").allowed


def test_a_thousand_subjects_are_all_remembered(limiter: RateLimiter) -> None:
    for remaining in (9, 8):
        assert {limiter.hit(AUTH, str(n)).remaining for n in range(1000)} == {remaining}


def test_a_subject_with_its_whole_quota_back_makes_room_for_another(small: RateLimiter, clock: Clock) -> None:
    for n in range(8):
        small.hit(DEFAULT if n == 3 else AUTH, str(n))
    clock.advance(1)
    small.hit(AUTH, "new")
    assert [small.hit(AUTH, name).remaining for name in ("new", "0", "7")] == [8, 8, 8]


def test_a_flood_of_new_subjects_does_not_free_the_one_that_is_held_back(small: RateLimiter) -> None:
    for _ in range(10):
        small.hit(AUTH, "greedy")
    for n in range(1000):
        assert small.hit(AUTH, f"flood {n}").remaining == 9  # counted, though the table is full
    assert not small.hit(AUTH, "greedy").allowed


def test_a_subject_that_has_used_more_is_remembered_longer(small: RateLimiter) -> None:
    for n in range(8):
        for _ in range(n + 1):
            small.hit(AUTH, str(n))
    small.hit(AUTH, "new")
    assert [small.peek(AUTH, str(n)).remaining for n in range(8)] == [10, 8, 7, 6, 5, 4, 3, 2]


def test_memory_stays_flat_under_any_number_of_subjects(kind: type[RateLimiter]) -> None:
    limiter = kind(capacity=1 << 10)
    for n in range(5_000):
        limiter.hit(AUTH, str(n))
    tracemalloc.start()
    try:
        for n in range(20_000):
            limiter.hit(AUTH, f"new {n}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 19


def test_threads_count_exactly(kind: type[RateLimiter]) -> None:
    limiter, allowed = kind(clock=clock_that_yields), []
    threads = [
        threading.Thread(target=lambda: allowed.extend(limiter.hit(NEVER_BACK, "a").allowed for _ in range(100)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 300


def clock_that_yields() -> int:
    """The limiter reads it between load and store: without a lock, another thread would come in there."""
    time.sleep(0)
    return time.monotonic_ns()
