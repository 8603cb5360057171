"""One count over many processes, whoever is killed."""

import os
import random
import signal
import threading
import time
from typing import Any

import pytest

from backend.infrastructure.rate_limiter import Policy, RateLimiter
from tests.forked import Forked, Signal

QUOTA = 500
NEVER_BACK = Policy("never back", QUOTA, QUOTA * 86400)  # one a day: nothing comes back while a test runs

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def allowed_of(limiter: RateLimiter, hits: int, subject: str = "a") -> int:
    return sum(limiter.hit(NEVER_BACK, subject).allowed for _ in range(hits))


def test_four_processes_get_exactly_the_quota_between_them() -> None:

    def clock() -> int:  # the limiter reads it between load and store
        time.sleep(0)
        return time.monotonic_ns()

    limiter = RateLimiter(clock=clock)
    begin = Signal()

    def work() -> int:
        begin.wait()
        return allowed_of(limiter, 250)

    children = [Forked(work) for _ in range(4)]
    for _ in children:
        begin.say()
    assert sum(child.result() for child in children) == QUOTA


def test_what_four_processes_give_back_is_exactly_what_is_left() -> None:
    """Each gives back half of its hits; what they kept and what then still passes is the quota."""

    def clock() -> int:  # the limiter reads it between load and store
        time.sleep(0)
        return 10**18

    limiter = RateLimiter(clock=clock)
    begin = Signal()

    def work() -> int:
        begin.wait()
        kept = 0
        for n in range(200):
            if limiter.hit(NEVER_BACK, "a").allowed:
                if n % 2:
                    limiter.refund(NEVER_BACK, "a", clock())
                else:
                    kept += 1
        return kept

    children = [Forked(work) for _ in range(4)]
    for _ in children:
        begin.say()
    kept = sum(child.result() for child in children)
    assert kept == 400
    assert allowed_of(limiter, QUOTA) == QUOTA - kept


def test_a_worker_killed_while_it_holds_the_lock_blocks_nobody() -> None:
    """Its hit counts as never made, and the others' are exact."""
    doomed = 0

    def clock() -> int:  # the limiter reads it under the lock
        if os.getpid() == doomed:
            os.kill(doomed, signal.SIGKILL)
        return time.monotonic_ns()

    def work() -> int:
        nonlocal doomed
        doomed = os.getpid()  # in this process only
        return allowed_of(limiter, 1)

    limiter = RateLimiter(clock=clock)
    killed = Forked(work)
    others = [Forked(lambda: allowed_of(limiter, 250)) for _ in range(4)]
    with pytest.raises(EOFError):
        killed.result()
    assert sum(other.result() for other in others) == QUOTA


def test_a_worker_killed_at_any_moment_costs_at_most_the_hit_it_was_making() -> None:
    for _ in range(30):
        limiter = RateLimiter(slots=8)
        counted, tells = os.pipe()
        doomed = Forked(lambda limiter=limiter, tells=tells: [
            os.write(tells, b".") for _ in range(QUOTA) if limiter.hit(NEVER_BACK, "a").allowed
        ])  # fmt: skip
        other = Forked(lambda limiter=limiter: allowed_of(limiter, QUOTA // 2))
        time.sleep(random.uniform(0, 0.004))
        doomed.kill()
        os.close(tells)
        with os.fdopen(counted, "rb") as pipe:
            allowed = len(pipe.read()) + other.result() + allowed_of(limiter, QUOTA)
        assert allowed in (QUOTA - 1, QUOTA)


@pytest.mark.parametrize("stores", [0, 1, 2, 3])
def test_a_worker_killed_between_two_stores_gives_nobody_the_count_of_another(stores: int) -> None:
    """The bucket is full of subjects that are held back; one of them has to make room for a new one."""
    limiter = RateLimiter(slots=8)
    for n in range(8):
        for _ in range(QUOTA):
            limiter.hit(NEVER_BACK, f"held back {n}")

    def work() -> None:
        limiter._words = FatalWords(limiter._words, stores)
        limiter.hit(NEVER_BACK, "new")

    child = Forked(work)
    if stores < 3:
        with pytest.raises(EOFError):
            child.result()
    else:
        child.result()
    assert limiter.hit(NEVER_BACK, "new").remaining == QUOTA - (1 if stores < 3 else 2)
    assert sum(limiter.hit(NEVER_BACK, f"held back {n}").allowed for n in range(7, 0, -1)) == 0


class FatalWords:
    """The limiter's memory, for a process that is killed when it has stored so many words and stores one more."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self._words = words
        self._stores = stores

    def __getitem__(self, at: Any) -> Any:
        return self._words[at]

    def __setitem__(self, at: int, word: int) -> None:
        if self._stores == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._stores -= 1
        self._words[at] = word


def test_a_forked_child_does_not_share_the_locks_of_its_parent() -> None:
    """Both have hit before the fork: through that descriptor, the parent would pass the lock the child holds."""
    parent, inside, leave = os.getpid(), Signal(), Signal()

    def clock() -> int:  # the limiter reads it under the lock
        if os.getpid() != parent:
            inside.say()
            leave.wait()
        return time.monotonic_ns()

    limiter = RateLimiter(clock=clock)
    limiter.hit(NEVER_BACK, "a")
    child = Forked(lambda: limiter.hit(NEVER_BACK, "a").remaining)
    inside.wait()
    timer = threading.Timer(0.2, leave.say)
    timer.start()
    assert limiter.hit(NEVER_BACK, "a").remaining == QUOTA - 3
    assert child.result() == QUOTA - 2
    timer.join()
