"""Passwords with one line for the whole machine: in order over all workers, also when one is killed."""

import base64
import hashlib
import hmac
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import bcrypt
import pytest

from backend.errors import Unavailable
from backend.infrastructure.passwords import CONTEXT
from backend.production import passwords
from backend.production.byte_locks import ByteLocks
from backend.production.passwords import SharedPasswords
from tests.at_once import at_once
from tests.forked import Forked
from tests.held_bcrypt import HeldBcrypt
from tests.waiting import wait_until


@pytest.fixture
def held(monkeypatch):
    held = HeldBcrypt()
    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield held
    held.may_end.set()


EVERYWHERE = (1, 2**62)
PATIENCE = 60  # seconds: longer than a busy machine delays a test


class Line:
    """Threads that join the line one after the other."""

    def __init__(self, locks):
        self.locks, self.threads = locks, ThreadPoolExecutor(80)
        self.asked = []

    def length(self):
        return self.locks.own().count_others(*EVERYWHERE)

    def join(self, passwords, password="x"):
        before = self.length()
        self.asked.append(self.threads.submit(passwords.matches, password, None))
        wait_until(lambda: self.length() == before + 1)
        return self.asked[-1]


@pytest.fixture
def line(held):
    line = Line(ByteLocks())
    yield line
    held.may_end.set()
    line.threads.shutdown()
    assert line.length() == 0


def assert_refused(asked):
    with pytest.raises(Unavailable) as refused:
        asked.result(30)
    return int(refused.value.headers["Retry-After"])


@pytest.mark.parametrize(("slots", "max_waiting"), [(1, 0), (1, 4), (2, 6), (4, 12), (2, 64)])
def test_a_full_line_refuses_the_next_call_at_once_and_serves_the_waiting_ones(held, line, slots, max_waiting):
    """The workers share the line. Once its calls are served, there is room again."""
    workers = [SharedPasswords(4, slots, line.locks, max_waiting, PATIENCE) for _ in range(2)]
    for number in range(slots + max_waiting):
        line.join(workers[number % 2])
    for worker in workers:
        assert assert_refused(line.threads.submit(worker.matches, "x", None)) == PATIENCE
    assert not any(one.done() for one in line.asked)
    wait_until(lambda: held.running == slots)
    held.may_end.set()
    assert [one.result(30) for one in line.asked] == [False] * (slots + max_waiting)
    assert held.most == slots
    assert workers[0].matches("x", None) is False


def test_calls_are_served_in_the_order_in_which_they_came_through_all_workers(line, monkeypatch):
    served, may_end = [], threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, salt: (may_end.wait(30), served.append(password)))
    workers = [SharedPasswords(4, 1, line.locks, timeout=PATIENCE) for _ in range(2)]
    names = [f"password {number}" for number in range(12)]
    for number, name in enumerate(names):
        line.join(workers[number // 2 % 2], name)  # two through one worker, two through the other, and so on
    may_end.set()
    for one in line.asked:
        one.result(30)
    assert served == [base64.b64encode(hmac.digest(CONTEXT, name.encode(), hashlib.sha384)) for name in names]


def test_a_call_that_has_waited_long_enough_leaves_the_line(line, monkeypatch):
    """It gets Unavailable once its time is over. Calls behind it stay, and the next one finds a place."""
    now, looks = 1000.0, []
    clock = SimpleNamespace(
        monotonic=lambda: looks.append(now) or now, monotonic_ns=time.monotonic_ns, sleep=lambda _: time.sleep(0.01)
    )
    monkeypatch.setattr(passwords, "time", clock)
    impatient, patient = (SharedPasswords(4, 1, line.locks, 2, timeout) for timeout in (2, PATIENCE))
    running = line.join(patient)
    waits, behind = line.join(impatient), line.join(patient)
    now = 1001.9
    wait_until(lambda: looks.count(now) > 10)  # some of them by the call that has been waiting for 1.9 s
    assert not waits.done()
    now = 1002.0
    assert assert_refused(waits) == 2
    assert (line.length(), running.done(), behind.done()) == (2, False, False)
    line.join(patient)


def test_a_change_waits_once_for_its_two_runs(held, line, monkeypatch):
    """It keeps its slot for both runs, so it cannot be refused between them."""
    passwords, order = SharedPasswords(4, 1, line.locks, 1, PATIENCE), []
    monkeypatch.setattr(bcrypt, "hashpw", lambda password, salt: order.append("new hash") or b"$2b$04$")
    asked = line.threads.submit(passwords.replaced, "x", "$2b$04$", "y")
    wait_until(lambda: held.running == 1)
    line.join(passwords).add_done_callback(lambda _: order.append("the next"))
    held.may_end.set()
    assert asked.result(30) == "$2b$04$"
    wait_until(lambda: len(order) == 2)
    assert order == ["new hash", "the next"]


def test_workers_share_the_slots_of_the_machine(held):
    """Two workers with two slots: never more than two runs at once, and all calls are served."""
    locks = ByteLocks()
    workers = [SharedPasswords(4, 2, locks, timeout=PATIENCE) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(worker.matches, "x", None) for worker in workers * 4]
        assert held.two_run.wait(30)
        held.may_end.set()
        assert [one.result() for one in asked] == [False] * 8
    assert held.most == 2


def test_of_many_simultaneous_calls_no_more_run_than_there_are_slots(monkeypatch):
    """The runs are short and end while other calls join the line."""
    runs = HeldBcrypt(seconds=0.001)
    monkeypatch.setattr(bcrypt, "checkpw", runs)
    locks = ByteLocks()
    workers = [SharedPasswords(4, 2, locks, timeout=PATIENCE) for _ in range(2)]
    assert at_once([lambda worker=worker: worker.matches("x", None) for worker in workers * 20]) == [False] * 40
    assert runs.most <= 2


def test_a_thread_that_is_delayed_while_it_joins_does_not_run_beside_a_later_one(held, line, monkeypatch):
    """The first thread has read its time of arrival but is not in line yet when the next one comes: only one runs."""
    monotonic_ns, came = time.monotonic_ns, threading.Event()

    def held_up():
        now = monotonic_ns()
        if not came.is_set():
            came.set()
            held.one_runs.wait(0.3)  # times out if the next thread cannot overtake
        return now

    monkeypatch.setattr(time, "monotonic_ns", held_up)
    passwords = SharedPasswords(4, 1, line.locks, timeout=PATIENCE)
    line.threads.submit(passwords.matches, "x", None)
    assert came.wait(30)
    line.threads.submit(passwords.matches, "x", None)
    wait_until(lambda: line.length() == 2)
    assert not held.two_run.wait(0.1)


def test_the_places_of_a_killed_worker_are_free_again(line, held):
    """Its running and its waiting calls."""
    here = SharedPasswords(4, 1, line.locks, 1, PATIENCE)

    def run_and_wait():
        bcrypt.checkpw = lambda password, salt: time.sleep(100)  # in the child alone
        theirs = SharedPasswords(4, 1, line.locks, 1, PATIENCE)
        at_once([lambda: theirs.matches("x", None)] * 2)

    child = Forked(run_and_wait)
    wait_until(lambda: line.length() == 2)
    assert_refused(line.threads.submit(here.matches, "x", None))
    child.kill()
    held.may_end.set()
    assert line.threads.submit(here.matches, "x", None).result(30) is False


def test_without_a_descriptor_for_the_line_it_is_unavailable():
    """Too many open files: 503, and no place is taken."""
    locks = ByteLocks()

    def ask():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            return SharedPasswords(4, 1, locks).matches("x", None)
        except Unavailable:
            return "unavailable"

    assert Forked(ask).result() == "unavailable"


def test_a_run_that_fails_gives_its_place_back(monkeypatch):
    """Also while its thread lives on."""
    locks = ByteLocks()
    passwords = SharedPasswords(4, 1, locks, max_waiting=0)
    with monkeypatch.context() as broken, ThreadPoolExecutor(1) as threads:
        broken.setattr(bcrypt, "hashpw", lambda password, salt: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            threads.submit(passwords.hash, "a password").result()
        assert locks.own().count_others(*EVERYWHERE) == 0
    assert passwords.matches("a password", passwords.hash("a password"))
