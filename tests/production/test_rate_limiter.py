"""The shared rate limiter: one count over many processes, although workers are killed."""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backend.infrastructure.rate_limiter import Policy
from backend.production.rate_limiter import SharedRateLimiter
from tests.at_once import at_once
from tests.forked import Forked, Signal

QUOTA = 500
NEVER_BACK = Policy("never back", QUOTA, QUOTA * 86400)  # one a day: no hit comes back while a test runs

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def allowed_of(limiter: SharedRateLimiter, hits: int, subject: str = "a") -> int:
    return sum(limiter.hit(NEVER_BACK, subject).allowed for _ in range(hits))


def test_four_processes_get_exactly_the_quota_between_them() -> None:
    def clock() -> int:  # the limiter reads it between load and store
        time.sleep(0)
        return time.monotonic_ns()

    limiter = SharedRateLimiter(clock=clock)
    begin = Signal()

    def work() -> int:
        begin.wait()
        return allowed_of(limiter, 250)

    children = [Forked(work) for _ in range(4)]
    for _ in children:
        begin.say()
    assert sum(child.result() for child in children) == QUOTA


def test_what_four_processes_refund_is_exactly_what_is_left() -> None:
    """Each process refunds half of its hits. The hits that are kept and those that still pass add up to the quota."""

    def clock() -> int:  # the limiter reads it between load and store
        time.sleep(0)
        return 10**18

    limiter = SharedRateLimiter(clock=clock)
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


def test_a_worker_killed_while_it_holds_the_lock_blocks_no_other() -> None:
    """Its hit is not counted, and those of the others are counted exactly."""
    doomed = 0

    def clock() -> int:  # the limiter reads it under the lock
        if os.getpid() == doomed:
            os.kill(doomed, signal.SIGKILL)
        return time.monotonic_ns()

    def work() -> int:
        nonlocal doomed
        doomed = os.getpid()  # in this process only
        return allowed_of(limiter, 1)

    limiter = SharedRateLimiter(clock=clock)
    killed = Forked(work)
    others = [Forked(lambda: allowed_of(limiter, 250)) for _ in range(4)]
    with pytest.raises(EOFError):
        killed.result()
    assert sum(other.result() for other in others) == QUOTA


def test_a_worker_killed_at_any_moment_costs_at_most_the_hit_it_was_making() -> None:
    for _ in range(30):
        limiter = SharedRateLimiter(capacity=8)
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


def test_a_worker_killed_at_any_line_gives_no_subject_the_count_of_another() -> None:
    """The bucket is full of subjects that are being refused, and a new subject evicts one of them."""
    for lines in range(100):
        limiter = SharedRateLimiter(capacity=8)
        for n in range(8):
            for _ in range(QUOTA):
                limiter.hit(NEVER_BACK, f"held back {n}")
        finished = has_finished(Forked(lambda lines=lines, limiter=limiter: hit_and_die(limiter, "new", lines)))
        assert limiter.hit(NEVER_BACK, "new").remaining in ((QUOTA - 2,) if finished else (QUOTA - 1, QUOTA - 2))
        assert sum(limiter.hit(NEVER_BACK, f"held back {n}").allowed for n in range(7, 0, -1)) == 0
        if finished:
            break
    assert finished and lines > 10


def has_finished(child: Forked) -> bool:
    try:
        child.result()
        return True
    except EOFError:
        return False


def hit_and_die(limiter: SharedRateLimiter, subject: str, lines: int) -> None:
    """Hit, in a process that is killed before it runs that many lines and one more of the limiter's module."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_globals["__name__"] != SharedRateLimiter.__module__:
            return None
        if event == "line":
            if lines == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            lines -= 1
        return trace

    sys.settrace(trace)
    limiter.hit(NEVER_BACK, subject)
    sys.settrace(None)


def test_a_forked_child_does_not_share_the_locks_of_its_parent() -> None:
    """The parent has hit before the fork: an inherited descriptor would let it pass the lock that the child holds."""
    parent, inside, leave = os.getpid(), Signal(), Signal()

    def clock() -> int:  # the limiter reads it under the lock
        if os.getpid() != parent:
            inside.say()
            leave.wait()
        return time.monotonic_ns()

    limiter = SharedRateLimiter(clock=clock)
    limiter.hit(NEVER_BACK, "a")
    child = Forked(lambda: limiter.hit(NEVER_BACK, "a").remaining)
    inside.wait()
    timer = threading.Timer(0.2, leave.say)
    timer.start()
    assert limiter.hit(NEVER_BACK, "a").remaining == QUOTA - 3
    assert child.result() == QUOTA - 2
    timer.join()


def test_the_lock_is_free_after_a_hit_although_the_thread_that_made_it_lives_on() -> None:
    limiter = SharedRateLimiter()
    limiter.hit(NEVER_BACK, "a")
    assert Forked(lambda: limiter.hit(NEVER_BACK, "a").remaining).result() == QUOTA - 2


def test_without_byte_locks_one_lock_for_all_counts_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is so on macOS, for threads and processes."""

    def clock() -> int:
        time.sleep(0)
        return time.monotonic_ns()

    monkeypatch.setattr(sys, "platform", "darwin")
    limiter = SharedRateLimiter(clock=clock)

    def allowed_over_threads() -> int:
        return sum(at_once([lambda: allowed_of(limiter, 50)] * 8))

    children = [Forked(allowed_over_threads) for _ in range(2)]
    assert allowed_over_threads() + sum(child.result() for child in children) == QUOTA


def test_an_arrival_that_todays_policy_cannot_have_stored_reads_as_now() -> None:
    """The counts outlive a reload, which may change the policy of a name."""
    limiter = SharedRateLimiter(clock=lambda: 10**15)
    for _ in range(10):
        limiter.hit(Policy("auth", 10, 86400), "a")
    assert limiter.hit(Policy("auth", 10, 60), "a") == (True, 9, 6.0, 0.0)


def test_no_client_can_know_which_subjects_share_a_bucket() -> None:
    """Two limiters evict different subjects for the same sequence of hits."""
    full = [SharedRateLimiter(capacity=64, clock=lambda: 10**15) for _ in range(2)]
    one, other = ([limiter.hit(NEVER_BACK, str(n % 100)).remaining for n in range(400)] for limiter in full)
    assert one != other


def test_the_process_does_not_grow_under_any_number_of_subjects() -> None:
    limiter = SharedRateLimiter(capacity=1 << 14)
    for n in range(20_000):  # fills every bucket
        limiter.hit(NEVER_BACK, str(n))
    before = resident_bytes()
    for n in range(100_000):
        limiter.hit(NEVER_BACK, f"new {n}")
    assert resident_bytes() - before < 1 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_thread_that_ends_leaves_no_descriptor_behind() -> None:
    limiter = SharedRateLimiter(capacity=8)
    before = open_descriptors()
    for _ in range(20):
        thread = threading.Thread(target=limiter.hit, args=(NEVER_BACK, "a"))
        thread.start()
        thread.join()
    assert open_descriptors() == before


def test_a_limiter_that_is_dropped_leaves_no_descriptor_behind() -> None:
    before = open_descriptors()
    SharedRateLimiter(capacity=8).hit(NEVER_BACK, "a")
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
