"""The lock before the database: a queue over threads and processes, with a time-out."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backend.infrastructure.file_lock import FileLock
from tests.at_once import asleep
from tests.forked import Forked, Signal

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


@pytest.fixture
def lock(tmp_path: Path) -> FileLock:
    return FileLock(tmp_path / "gate")


def held_by_a_child(lock: FileLock, until: Signal) -> Forked:
    """A child that has got the lock by now, and keeps it until it is told."""
    has = Signal()

    def work() -> None:
        assert lock.acquire(5)
        has.say()
        until.wait()
        lock.release()

    child = Forked(work)
    has.wait()
    return child


def test_it_can_be_had_again_and_again(lock: FileLock) -> None:
    for _ in range(3):
        assert lock.acquire(0)
        lock.release()


def test_one_thread_excludes_another_of_its_process(lock: FileLock) -> None:
    assert lock.acquire(1)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(lock.acquire(5)))
    thread.start()
    thread.join(0.1)
    assert got == []
    lock.release()
    thread.join()
    assert got == [True]


def test_two_locks_on_one_path_are_one(lock: FileLock, tmp_path: Path) -> None:
    assert lock.acquire(0)
    assert not FileLock(tmp_path / "gate").acquire(0)


def test_a_held_lock_is_not_had_when_the_time_is_over(lock: FileLock) -> None:
    leave = Signal()
    child = held_by_a_child(lock, leave)
    for seconds in (0.0, -1.0, 0.2):
        start = time.monotonic()
        assert not lock.acquire(seconds)
        assert max(seconds, 0) <= time.monotonic() - start < max(seconds, 0) + 0.15
    leave.say()
    child.result()


def test_who_does_not_wait_is_not_in_line(lock: FileLock) -> None:
    """So nobody waits in his place either, and whoever passes the lock on does not hand it to him."""
    assert lock.acquire(0)
    before = threading.active_count()
    assert not lock.acquire(0)
    assert threading.active_count() == before


def test_who_has_gone_away_is_handed_nothing(lock: FileLock) -> None:
    """The lock that the porter gets after all goes back, so that this process and any other can have it."""
    leave = Signal()
    child = held_by_a_child(lock, leave)
    assert not lock.acquire(0.01)
    leave.say()
    child.result()
    assert Forked(lambda: lock.acquire(5)).result()
    assert lock.acquire(5)


def test_what_comes_for_nobody_is_free_at_once_although_a_child_was_forked_meanwhile(lock: FileLock) -> None:
    """The child shares the descriptor that this process's porter waited with."""
    leave, idle_until = Signal(), Signal()
    child = held_by_a_child(lock, leave)
    assert not lock.acquire(0.01)
    idle = Forked(idle_until.wait)
    leave.say()
    child.result()
    time.sleep(0.1)
    assert Forked(lambda: lock.acquire(1)).result()
    idle_until.say()
    idle.result()


def test_a_turn_that_comes_just_after_the_time_is_over_is_taken(tmp_path: Path) -> None:
    """Else the lock would be handed to nobody, and this process would keep it for ever."""

    class Late(FileLock):
        def _left(self, turn: Any) -> bool:
            leave.say()
            turn.came.acquire()
            return super()._left(turn)

    lock, leave = Late(tmp_path / "gate"), Signal()
    child = held_by_a_child(lock, leave)
    assert lock.acquire(0.01)
    lock.release()
    child.result()


def test_who_comes_while_the_porter_still_waits_for_others_that_have_gone_is_served(lock: FileLock) -> None:
    leave = Signal()
    child = held_by_a_child(lock, leave)
    assert not lock.acquire(0.01)
    timer = threading.Timer(0.1, leave.say)
    timer.start()
    assert lock.acquire(5)
    timer.join()
    child.result()


def test_first_come_first_served(lock: FileLock) -> None:
    assert lock.acquire(0)
    served: list[int] = []

    def wait(number: int) -> None:
        assert lock.acquire(5)
        served.append(number)
        lock.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
        asleep(thread)  # in line by now; to have been started is not enough
    lock.release()
    for thread in threads:
        thread.join()
    assert served == list(range(20))


def test_passed_on_it_goes_to_who_has_waited_longest_here_and_nobody_comes_between(lock: FileLock) -> None:
    """Although another process has waited longer than he; to him it comes when it is released."""
    begin, got = Signal(), Signal()

    def work() -> None:
        begin.wait()
        assert lock.acquire(5)
        got.say()

    child = Forked(work)
    assert lock.acquire(0)
    begin.say()
    time.sleep(0.1)
    served: list[int] = []

    def wait(number: int) -> None:
        assert lock.acquire(5)
        served.append(number)
        if not lock.pass_on():
            lock.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        asleep(thread)
    assert lock.pass_on()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2]
    got.wait()
    child.result()


def test_what_nobody_waits_for_cannot_be_passed_on_and_is_kept(lock: FileLock) -> None:
    assert lock.acquire(0)
    assert not lock.pass_on()
    assert not lock.acquire(0)
    lock.release()
    assert lock.acquire(5)


def test_nobody_waits_much_longer_than_the_others_over_all_threads_and_processes(lock: FileLock) -> None:
    """2 processes of 4 threads that want it all the time: of 8 turns, each thread gets about every eighth."""
    begin = Signal()

    def turns_of_one_thread(turns: list[int]) -> None:
        own, end = 0, time.monotonic() + 1
        while time.monotonic() < end:
            assert lock.acquire(5)
            time.sleep(0.002)
            lock.release()
            own += 1
        turns.append(own)

    def work() -> list[int]:
        turns: list[int] = []
        threads = [threading.Thread(target=turns_of_one_thread, args=(turns,)) for _ in range(4)]
        begin.wait()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return turns

    children = [Forked(work) for _ in range(2)]
    for _ in children:
        begin.say()
    turns = [own for child in children for own in child.result()]
    assert len(turns) == 8
    assert min(turns) > max(turns) / 2


def test_two_never_have_it_at_once(lock: FileLock, tmp_path: Path) -> None:
    """4 processes of 2 threads add one to a number in a file, 100 times each."""
    number = tmp_path / "number"
    number.write_text("0")

    def add() -> None:
        for _ in range(100):
            assert lock.acquire(20)
            number.write_text(str(int(number.read_text()) + 1))
            lock.release()

    def work() -> None:
        other = threading.Thread(target=add)
        other.start()
        add()
        other.join()

    for child in [Forked(work) for _ in range(4)]:
        child.result()
    assert number.read_text() == "800"


def test_the_kernel_frees_it_when_its_holder_is_killed(lock: FileLock) -> None:
    child = held_by_a_child(lock, Signal())
    threading.Timer(0.1, child.kill).start()
    assert lock.acquire(5)


def test_the_kernel_frees_it_when_a_process_is_killed_that_waits_for_it(lock: FileLock) -> None:
    leave = Signal()
    holder = held_by_a_child(lock, leave)
    waiting = Forked(lambda: lock.acquire(20))
    time.sleep(0.1)
    waiting.kill()
    leave.say()
    holder.result()
    assert lock.acquire(5)


def test_a_stopped_holder_costs_the_time_and_no_more(lock: FileLock) -> None:
    leave = Signal()
    child = held_by_a_child(lock, leave)
    os.kill(child.pid, signal.SIGSTOP)
    got: list[bool] = []
    start = time.monotonic()
    threads = [threading.Thread(target=lambda: got.append(lock.acquire(0.2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 0.5
    assert got == [False] * 4
    os.kill(child.pid, signal.SIGCONT)
    leave.say()
    child.result()


def test_a_child_forked_while_it_is_held_and_waited_for_begins_anew(lock: FileLock) -> None:
    """It has neither the lock nor those who wait for it; it waits its turn, and holds nothing back if it does not."""
    assert lock.acquire(0)
    waiting = threading.Thread(target=lambda: lock.acquire(5) and lock.release())
    waiting.start()
    asleep(waiting)
    idle_until, tried = Signal(), Signal()
    idle, child = Forked(idle_until.wait), Forked(lambda: (lock.acquire(0.05), tried.say(), lock.acquire(5)))
    tried.wait()
    lock.release()
    waiting.join()
    assert child.result() == (False, None, True)
    assert lock.acquire(1)
    idle_until.say()
    idle.result()


def test_it_leaves_no_descriptor_and_no_thread_behind(lock: FileLock) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_descriptors(), threading.active_count()
    for _ in range(20):
        assert lock.acquire(0)
        assert not lock.acquire(0.001)
        lock.release()
        assert lock.acquire(5)
        lock.release()
    deadline = time.monotonic() + 5
    while (open_descriptors(), threading.active_count()) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (open_descriptors(), threading.active_count()) == before


def test_a_file_that_cannot_be_opened_is_an_error_and_no_hindrance(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "missing" / "gate")
    with pytest.raises(FileNotFoundError):
        lock.acquire(1)
    (tmp_path / "missing").mkdir()
    assert lock.acquire(1)


def test_only_what_is_held_can_be_released(lock: FileLock) -> None:
    with pytest.raises(RuntimeError):
        lock.release()
