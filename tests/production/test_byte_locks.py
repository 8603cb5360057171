"""Locks on bytes: each is exclusive, others can count them, and the kernel frees those of a killed process."""

import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.production.byte_locks import ByteLocks
from tests.forked import Forked, Signal
from tests.waiting import wait_until

EVERYWHERE = (0, 2**62)
BYTES = (50, 10, 40, 20, 2**40, 30, 11)  # in the order in which they are locked


@pytest.fixture
def locks():
    return ByteLocks()


@pytest.fixture
def held(locks):
    """Each byte is locked by a thread of its own."""
    over = threading.Event()

    def hold(byte):
        locks.own().lock(byte)
        over.wait(30)

    with ThreadPoolExecutor(len(BYTES)) as threads:
        for number, byte in enumerate(BYTES):
            threads.submit(hold, byte)
            wait_until(lambda number=number: locks.own().count_others(*EVERYWHERE) == number + 1)
        yield locks.own()
        over.set()


@pytest.mark.parametrize(
    ("first", "end", "count"),
    [
        (0, 2**62, 7), (0, 10, 0), (0, 11, 1), (10, 11, 1), (10, 12, 2), (12, 20, 0), (10, 41, 5), (10, 50, 5),
        (10, 51, 6), (21, 41, 2), (51, 2**40, 0), (2**40, 2**62, 1), (30, 30, 0), (40, 20, 0),
    ],
)  # fmt: skip
def test_the_locks_of_others_within_a_range_are_counted(held, first, end, count):
    assert held.count_others(first, end) == count


def test_own_locks_do_not_count(held):
    held.lock(25)
    assert held.count_others(*EVERYWHERE) == len(BYTES)


def test_an_unlocked_byte_is_free_and_the_others_are_not(locks):
    """Unlocking a byte that is not locked is no error."""
    own = locks.own()
    for byte in (10, 20, 30):
        own.lock(byte)
    for byte in (20, 20, 25):
        own.unlock(byte)
    count = Forked(lambda: [locks.own().count_others(byte, byte + 1) for byte in (10, 20, 30)])
    assert count.result() == [1, 0, 1]


def test_a_forked_child_has_locks_of_its_own(locks):
    """Even if the forking thread has locked some: an inherited descriptor would share its locks."""
    locks.own().lock(5)
    assert Forked(lambda: locks.own().count_others(*EVERYWHERE)).result() == 1


def test_a_neighbour_of_a_locked_byte_is_free(locks):
    own, other = locks.own(), Signal()

    def take_the_next():
        locks.own().lock(8)
        other.say()

    own.lock(7)
    child = Forked(take_the_next)
    other.wait()
    assert child.result() is None


def test_a_killed_process_leaves_no_lock(locks):
    """The two neighbouring bytes count as one lock."""

    def hold():
        locks.own().lock(1)
        locks.own().lock(2)
        threading.Event().wait(30)

    child = Forked(hold)
    wait_until(lambda: locks.own().count_others(2, 3) == 1)
    assert locks.own().count_others(*EVERYWHERE) == 1
    child.kill()
    assert locks.own().count_others(*EVERYWHERE) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a file has a name")
def test_there_is_no_file_that_could_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locks = ByteLocks()
    locks.own().lock(0)
    assert list(tmp_path.iterdir()) == []
