"""The gate: a queue over threads and processes, with a time-out. (Deleted files, failed calls: *_faults.py.)"""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from backend.production.write_gate import WriteGate
from tests.at_once import asleep, at_once
from tests.forked import Forked, Signal
from tests.production.held_gate import held_by_a_child
from tests.waiting import wait_until
from tests.watching import descriptors_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database that need not exist."""
    return tmp_path / "app.db"


@pytest.fixture
def gate(path: Path) -> WriteGate:
    return WriteGate(path)


def in_line(child: Forked) -> None:
    """Return when a thread of the child waits in the kernel for a lock on a file."""
    wait_until(lambda: any(f" {child.pid} " in line for line in _waiting_locks()))


def _waiting_locks() -> list[str]:
    return [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]


def test_it_can_be_acquired_repeatedly(gate: WriteGate) -> None:
    for _ in range(3):
        assert gate.acquire(0)
        gate.release()


def test_one_thread_excludes_another_of_its_process(gate: WriteGate) -> None:
    assert gate.acquire(1)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    thread.start()
    asleep(thread)
    assert got == []
    gate.release()
    thread.join()
    assert got == [True]


def test_two_gates_of_one_database_are_one(gate: WriteGate, path: Path) -> None:
    assert gate.acquire(0)
    assert not WriteGate(path).acquire(0)


def test_a_wait_ends_with_its_time(gate: WriteGate, path: Path) -> None:
    leave = Signal()
    child = held_by_a_child(path, leave)
    for seconds in (0.0, -1.0, 0.2):
        start = time.monotonic()
        assert not gate.acquire(seconds)
        assert time.monotonic() - start >= seconds
    leave.say()
    child.result()
    assert gate.acquire(30)


def test_a_thread_that_does_not_wait_is_not_in_line(gate: WriteGate, path: Path) -> None:
    """No lock thread waits for it, and the gate cannot be passed on to it."""
    leave, before = Signal(), threading.active_count()
    child = held_by_a_child(path, leave)
    assert not gate.acquire(0)
    assert threading.active_count() <= before
    leave.say()
    child.result()
    assert gate.acquire(0)
    assert not gate.acquire(0)
    assert not gate.pass_on()


def test_a_thread_that_has_left_the_line_is_passed_nothing(gate: WriteGate, path: Path) -> None:
    """The lock thread releases the gate that it gets too late: this process and others can acquire it."""
    leave = Signal()
    child = held_by_a_child(path, leave)
    assert not gate.acquire(0.01)
    leave.say()
    child.result()
    assert Forked(lambda: WriteGate(path).acquire(30)).result()
    assert gate.acquire(30)


def test_a_thread_that_is_interrupted_in_line_is_passed_nothing(gate: WriteGate, path: Path) -> None:
    leave = Signal()
    child = held_by_a_child(path, leave)
    main = threading.main_thread()

    def interrupt() -> None:
        wait_until(lambda: any(f" {os.getpid()} " in line for line in _waiting_locks()))
        asleep(main)
        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        gate.acquire(60)
    interrupter.join()
    leave.say()
    child.result()
    assert gate.acquire(30)


@pytest.mark.parametrize("held_by", ["a thread", "the lock thread"])
def test_it_is_free_once_released_although_a_forked_child_shares_the_descriptor(
    gate: WriteGate, path: Path, held_by: str
) -> None:
    leave, idle_until = Signal(), Signal()
    if held_by == "a thread":
        assert gate.acquire(0)
        idle = Forked(idle_until.wait)
        gate.release()
    else:
        child = held_by_a_child(path, leave)
        assert not gate.acquire(0.01)
        idle = Forked(idle_until.wait)
        leave.say()
        child.result()
    assert Forked(lambda: WriteGate(path).acquire(30)).result()
    idle_until.say()
    idle.result()


def test_a_thread_that_comes_while_the_lock_thread_waits_for_others_that_have_left_is_served(
    gate: WriteGate, path: Path
) -> None:
    leave, got = Signal(), []
    child = held_by_a_child(path, leave)
    assert not gate.acquire(0.01)
    thread = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    thread.start()
    asleep(thread)
    leave.say()
    thread.join()
    assert got == [True]
    child.result()


def test_a_turn_that_comes_as_the_time_ends_is_either_taken_or_left(gate: WriteGate) -> None:
    """It is never passed to a thread that has left: otherwise this process could not acquire the gate again."""
    outcomes: list[bool] = []
    waiting = ["one", "other"]

    def wait() -> None:
        while len(outcomes) < 400 or set(outcomes) != {True, False}:
            outcomes.append(got := gate.acquire(0.001))
            if got:
                gate.release()
        waiting.pop()

    def hold() -> None:
        while waiting:
            if gate.acquire(30):
                time.sleep(0.001)
                if not gate.pass_on():
                    gate.release()

    at_once([wait, wait, hold])
    assert gate.acquire(30)


def test_first_come_first_served(gate: WriteGate) -> None:
    assert gate.acquire(0)
    served: list[int] = []

    def wait(number: int) -> None:
        assert gate.acquire(30)
        served.append(number)
        gate.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
        asleep(thread)  # in line by now; a started thread need not be
    gate.release()
    for thread in threads:
        thread.join()
    assert served == list(range(20))


def test_passed_on_it_goes_to_the_thread_that_has_waited_longest_in_this_process(gate: WriteGate, path: Path) -> None:
    """Although another process has waited longer: it gets the gate at the release."""
    begin, got = Signal(), Signal()

    def work() -> None:
        begin.wait()
        assert WriteGate(path).acquire(30)
        got.say()

    child = Forked(work)
    assert gate.acquire(0)
    begin.say()
    in_line(child)
    served: list[int] = []

    def wait(number: int) -> None:
        assert gate.acquire(30)
        served.append(number)
        if not gate.pass_on():
            gate.release()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        asleep(thread)
    assert gate.pass_on()
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2]
    got.wait()
    child.result()


def test_a_gate_that_no_thread_waits_for_cannot_be_passed_on_and_is_kept(gate: WriteGate) -> None:
    assert gate.acquire(0)
    assert not gate.pass_on()
    assert not gate.acquire(0)
    gate.release()
    assert gate.acquire(30)


def test_all_threads_of_all_processes_get_about_as_many_turns(path: Path) -> None:
    """2 processes of 4 threads acquire it all the time. No thread has four times as many turns as another.

    In one of five tries: a busy machine may stop a thread, or all of a process, while the others go on.
    """
    assert any(min(turns) > max(turns) / 4 for turns in (turns_of_all_threads(path) for _ in range(5)))


def turns_of_all_threads(path: Path) -> list[int]:
    """How many turns each of eight threads has within 1.5 s."""
    begin = Signal()

    def turns_of_one_thread(gate: WriteGate, turns: list[int]) -> None:
        own, end = 0, time.monotonic() + 1.5
        while time.monotonic() < end:
            assert gate.acquire(30)
            time.sleep(0.002)
            gate.release()
            own += 1
        turns.append(own)

    def work() -> list[int]:
        gate, turns = WriteGate(path), list[int]()
        begin.wait()
        at_once([lambda: turns_of_one_thread(gate, turns)] * 4)
        return turns

    children = [Forked(work) for _ in range(2)]
    for _ in children:
        begin.say()
    turns = [own for child in children for own in child.result()]
    assert len(turns) == 8
    return turns


def test_two_threads_never_hold_it_together(path: Path, tmp_path: Path) -> None:
    """4 processes of 2 threads add one to a number in a file, 100 times each."""
    number = tmp_path / "number"
    number.write_text("0")

    def add(gate: WriteGate) -> None:
        for _ in range(100):
            assert gate.acquire(30)
            number.write_text(str(int(number.read_text()) + 1))
            gate.release()

    def work() -> None:
        gate = WriteGate(path)
        at_once([lambda: add(gate)] * 2)

    for child in [Forked(work) for _ in range(4)]:
        child.result()
    assert number.read_text() == "800"


def test_the_kernel_frees_it_when_its_holder_is_killed(gate: WriteGate, path: Path) -> None:
    child, got = held_by_a_child(path, Signal()), []
    thread = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    thread.start()
    asleep(thread)
    child.kill()
    thread.join()
    assert got == [True]


def test_a_process_that_is_killed_while_it_waits_leaves_nothing_behind(gate: WriteGate, path: Path) -> None:
    leave = Signal()
    holder = held_by_a_child(path, leave)
    waiting = Forked(lambda: WriteGate(path).acquire(30))
    in_line(waiting)
    waiting.kill()
    leave.say()
    holder.result()
    assert gate.acquire(30)


def test_a_stopped_holder_costs_each_thread_its_time_and_no_more(gate: WriteGate, path: Path) -> None:
    leave = Signal()
    child = held_by_a_child(path, leave)
    os.kill(child.pid, signal.SIGSTOP)
    assert at_once([lambda: gate.acquire(0.2)] * 4) == [False] * 4
    os.kill(child.pid, signal.SIGCONT)
    leave.say()
    child.result()
    assert gate.acquire(30)


def test_it_leaves_no_descriptor_and_no_thread_behind(gate: WriteGate, path: Path) -> None:
    leave, threads = Signal(), threading.active_count()
    child = held_by_a_child(path, leave)
    for _ in range(20):
        assert not gate.acquire(0)
    assert descriptors_of(path.with_name("app.db-gate")) == 0
    for _ in range(20):
        assert not gate.acquire(0.001)
    leave.say()
    child.result()
    for _ in range(20):
        assert gate.acquire(30)
        assert not gate.acquire(0.001)
        gate.release()
    wait_until(lambda: descriptors_of(path.with_name("app.db-gate")) == 0 and threading.active_count() <= threads)


def test_a_file_that_cannot_be_opened_is_an_error_and_no_hindrance(tmp_path: Path) -> None:
    gate = WriteGate(tmp_path / "missing" / "app.db")
    with pytest.raises(FileNotFoundError):
        gate.acquire(1)
    (tmp_path / "missing").mkdir()
    assert gate.acquire(1)
    assert (tmp_path / "missing" / "app.db-gate").stat().st_mode & 0o777 == 0o600
