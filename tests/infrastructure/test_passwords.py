"""bcrypt over a pre-hash, few at once. A test that has to hold bcrypt back does so at bcrypt's own function."""

import base64
import hashlib
import hmac
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest

from backend.errors import RateLimited, Unavailable
from backend.infrastructure.byte_locks import ByteLocks
from backend.infrastructure.passwords import Passwords
from backend.infrastructure.rate_limiter import Count, Policy, RateLimiter
from tests.at_once import at_once
from tests.forked import Forked
from tests.production.gunicorn_server import wait_until

CONTEXT = b"reference-backend password v1"


@pytest.fixture
def passwords():
    return Passwords(rounds=4)


def test_a_hash_is_bcrypts_of_the_prehash(passwords):
    """base64(HMAC-SHA-384(context, UTF-8)) at the cost that was asked for: 64 bytes, of which bcrypt reads all."""
    hashed = passwords.hash("crème brûlée")
    prehash = base64.b64encode(hmac.digest(CONTEXT, "crème brûlée".encode(), hashlib.sha384))
    assert len(prehash) == 64
    assert hashed.startswith("$2b$04$") and bcrypt.checkpw(prehash, hashed.encode())


def test_hashes_of_before_stay_good(passwords):
    """Made by the first version of this code: whoever changes the pre-hash locks everybody out."""
    old = "$2b$04$ta484Xa7RbPra1UMmkTl3u6qbAGALctOwrc4QhmY3qts8nrQ3656u"
    assert passwords.matches("correct horse battery staple", old)
    assert not passwords.matches("correct horse battery stapler", old)


def test_a_bcrypt_hash_without_the_prehash_is_of_no_use(passwords):
    """Hashes stolen from elsewhere: of the password itself, or of its plain digest."""
    digest = base64.b64encode(hashlib.sha384(b"password of mine").digest())
    for foreign in (b"password of mine", digest):
        assert not passwords.matches("password of mine", bcrypt.hashpw(foreign, bcrypt.gensalt(4)).decode())


def test_each_hash_has_a_salt_of_its_own(passwords):
    assert passwords.hash("the same one") != passwords.hash("the same one")


@pytest.mark.parametrize("length", [1, 71, 72, 73, 256, 1000])
def test_every_character_counts(passwords, length):
    password = "p" * length
    hashed = passwords.hash(password)
    assert passwords.matches(password, hashed)
    for other in (f"{password[:-1]}q", f"q{password[1:]}", f"{password}p", f"{password}\0", password[:-1]):
        assert not passwords.matches(other, hashed)


@pytest.mark.parametrize("nobodys", [None, "!", ""])
def test_without_a_hash_nothing_matches_but_a_run_is_paid(passwords, monkeypatch, nobodys):
    """An unknown user costs one run at today's cost, the first time as every other time."""
    costs = []
    checkpw = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, salt: costs.append(salt[:7]) or checkpw(password, salt))
    for password in ("x", "any at all", "!", ""):
        assert not passwords.matches(password, nobodys)
    assert costs == [b"$2b$04$"] * 4
    assert not Passwords(rounds=5).matches("x", nobodys)
    assert costs[-1] == b"$2b$05$"


@pytest.mark.parametrize("rounds", [4, 5, 7])
def test_a_wrong_password_costs_as_much_for_a_hash_of_a_lower_cost(passwords, monkeypatch, rounds):
    """In all, what an unknown user costs; else the time would tell that there is a hash, and of which cost."""
    hashed, work = passwords.hash("the password"), []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(
            bcrypt, name, lambda text, salt, run=run: work.append(2 ** int(salt.split(b"$")[2])) or run(text, salt)
        )
    later = Passwords(rounds)
    for check in (later.matches, later.renewed, lambda wrong, of: later.replaced(wrong, of, "the new one")):
        for one in (hashed, None, "!"):
            work.clear()
            assert not check("a wrong one", one)
            assert sum(work) == 2**rounds


@pytest.mark.parametrize(("now", "outdated"), [(4, False), (5, True), (12, True)])
def test_a_hash_is_outdated_once_the_cost_has_changed(passwords, now, outdated):
    assert Passwords(now).outdated(passwords.hash("a password")) is outdated


class HeldBcrypt:
    """bcrypt that does not end before it may, and knows how many runs there are at once."""

    def __init__(self):
        self.may_end, self.one_runs, self.two_run = threading.Event(), threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0

    def __call__(self, password, salt):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.one_runs.set()
            if self.running == 2:
                self.two_run.set()
        self.may_end.wait(10)
        with self.lock:
            self.running -= 1
        return True


@pytest.fixture
def held(monkeypatch):
    held = HeldBcrypt()
    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield held
    held.may_end.set()


EVERYWHERE = (1, 2**62)


class Line:
    """Threads that ask, one after the other; a thread joins only once the one before it is in line."""

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
        asked.result(10)
    return int(refused.value.headers["Retry-After"])


@pytest.mark.parametrize(("slots", "max_waiting"), [(1, 0), (1, 4), (2, 6), (4, 12), (2, 64)])
def test_a_full_line_refuses_the_next_at_once_and_none_in_it(held, line, slots, max_waiting):
    """The workers share the line; once it has been served there is room again."""
    workers = [Passwords(4, slots, line.locks, max_waiting) for _ in range(2)]
    for number in range(slots + max_waiting):
        line.join(workers[number % 2])
    for worker in workers:
        assert assert_refused(line.threads.submit(worker.matches, "x", None)) == 10
    assert not any(one.done() for one in line.asked)
    held.may_end.set()
    assert [one.result(10) for one in line.asked] == [False] * (slots + max_waiting)
    assert held.most == slots
    assert workers[0].matches("x", None) is False


def test_first_come_first_served_through_whichever_worker(line, monkeypatch):
    served, may_end = [], threading.Event()
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, salt: (may_end.wait(10), served.append(password)))
    workers = [Passwords(4, 1, line.locks) for _ in range(2)]
    names = [f"password {number}" for number in range(12)]
    for number, name in enumerate(names):
        line.join(workers[number // 2 % 2], name)  # two through one worker, two through the other, …
    may_end.set()
    for one in line.asked:
        one.result(10)
    assert served == [base64.b64encode(hmac.digest(CONTEXT, name.encode(), hashlib.sha384)) for name in names]


def test_one_that_has_waited_long_enough_leaves_the_line(line):
    """With Unavailable, and not before its time; those behind it stay, and the next finds a place."""
    impatient, patient = Passwords(4, 1, line.locks, 2, patience=0.3), Passwords(4, 1, line.locks, 2)
    running = line.join(patient)
    began = time.monotonic()
    waits, behind = line.join(impatient), line.join(patient)
    assert assert_refused(waits) == 1
    assert time.monotonic() - began >= 0.3
    assert (line.length(), running.done(), behind.done()) == (2, False, False)
    line.join(patient)


def test_a_run_may_take_longer_than_one_may_wait(held, line):
    asked = line.join(Passwords(4, 1, line.locks, patience=0.01))
    assert held.two_run.wait(0.05) is False
    held.may_end.set()
    assert asked.result(10) is False


def test_a_change_waits_once_for_its_two_runs(held, line, monkeypatch):
    """It keeps its slot for both, so it cannot be refused in between."""
    passwords, order = Passwords(4, 1, line.locks, max_waiting=1), []
    monkeypatch.setattr(bcrypt, "hashpw", lambda password, salt: order.append("new hash") or b"$2b$04$")
    asked = line.threads.submit(passwords.replaced, "x", "$2b$04$", "y")
    wait_until(lambda: held.running == 1)
    line.join(passwords).add_done_callback(lambda _: order.append("the next"))
    held.may_end.set()
    assert asked.result(10) == "$2b$04$"
    wait_until(lambda: len(order) == 2)
    assert order == ["new hash", "the next"]


def test_replaced_is_a_hash_of_the_new_password_for_the_right_one_alone(passwords):
    old = passwords.hash("the old one")
    new = passwords.replaced("the old one", old, "the new one")
    assert passwords.matches("the new one", new) and not passwords.matches("the old one", new)
    for wrong, hashed in (("the new one", old), ("the old one", None), ("the old one", "!")):
        assert passwords.replaced(wrong, hashed, "the new one") is None


@pytest.fixture
def wrong():
    """A count of ten wrong passwords."""
    return Count(RateLimiter(slots=8, clock=lambda: 10**15), Policy("wrong", 10, 60), "a")


@pytest.mark.parametrize("check", ["matches", "replaced", "renewed"])
def test_a_wrong_password_is_counted_and_a_right_one_not(passwords, wrong, check):
    hashed = passwords.hash("right")
    more = ["a new one"] if check == "replaced" else []
    for password, known, left in [("right", hashed, 10), ("other", hashed, 9), ("right", None, 8), ("right", "!", 7)]:
        getattr(passwords, check)(password, known, *more, wrong)
        assert wrong.result.remaining == left


def test_a_full_count_refuses_without_a_run(passwords, wrong, monkeypatch):
    for _ in range(10):
        wrong.hit()
    monkeypatch.delattr(bcrypt, "checkpw")
    with pytest.raises(RateLimited):
        passwords.matches("x", None, wrong)


def test_what_waits_in_line_counts_nothing_and_what_runs_counts_until_it_has_succeeded(held, line, wrong):
    passwords = Passwords(4, 1, line.locks, max_waiting=2)
    for _ in range(3):
        before = line.length()
        line.asked.append(line.threads.submit(passwords.matches, "x", None, wrong))
        wait_until(lambda before=before: line.length() == before + 1)
    assert_refused(line.threads.submit(passwords.matches, "x", None, wrong))
    wait_until(lambda: held.running == 1)
    wrong.peek()
    assert wrong.result.remaining == 9
    held.may_end.set()
    assert [one.result(10) for one in line.asked] == [False] * 3
    wrong.peek()
    assert wrong.result.remaining == 7


def test_renewed_keeps_a_hash_of_todays_cost_and_replaces_another(passwords):
    hashed = passwords.hash("the password")
    assert passwords.renewed("the password", hashed) == hashed
    renewed = Passwords(5).renewed("the password", hashed)
    assert renewed.startswith("$2b$05$") and passwords.matches("the password", renewed)
    for hashed_of_it in (hashed, None, "!"):
        assert Passwords(5).renewed("another", hashed_of_it) is None


def test_workers_share_the_slots_of_the_machine(held):
    """Two of them with places for two runs: never more than two at once, and all get their turn."""
    locks = ByteLocks()
    workers = [Passwords(4, 2, locks) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(worker.matches, "x", None) for worker in workers * 4]
        assert held.two_run.wait(10)
        held.may_end.set()
        assert [one.result() for one in asked] == [False] * 8
    assert held.most == 2


def test_of_many_that_come_at_once_no_more_run_than_there_are_slots(monkeypatch):
    """Real runs, which end while others join the line."""
    lock, running, most = threading.Lock(), 0, 0

    def counted(password, salt):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    locks = ByteLocks()
    workers = [Passwords(4, 2, locks) for _ in range(2)]
    assert at_once([lambda worker=worker: worker.matches("x", None) for worker in workers * 20]) == [False] * 40
    assert most == 2


def test_a_thread_that_is_held_up_while_it_joins_does_not_slip_in_before_one_that_runs(held, line, monkeypatch):
    """It knows when it came, but is not in line yet when the next thread comes: still only one runs."""
    monotonic_ns, came = time.monotonic_ns, threading.Event()

    def held_up():
        now = monotonic_ns()
        if not came.is_set():
            came.set()
            held.one_runs.wait(0.3)  # in vain, if the next thread cannot pass
        return now

    monkeypatch.setattr(time, "monotonic_ns", held_up)
    passwords = Passwords(4, 1, line.locks)
    line.threads.submit(passwords.matches, "x", None)
    assert came.wait(10)
    line.threads.submit(passwords.matches, "x", None)
    wait_until(lambda: line.length() == 2)
    assert not held.two_run.wait(0.1)


def test_the_places_of_a_killed_worker_are_free_again(line, held):
    """Those of its runs and those in line."""
    here = Passwords(4, 1, line.locks, max_waiting=1)

    def run_and_wait():
        bcrypt.checkpw = lambda password, salt: time.sleep(30)  # in the child alone
        theirs = Passwords(4, 1, line.locks, max_waiting=1)
        at_once([lambda: theirs.matches("x", None)] * 2)

    child = Forked(run_and_wait)
    wait_until(lambda: line.length() == 2)
    assert_refused(line.threads.submit(here.matches, "x", None))
    child.kill()
    held.may_end.set()
    assert line.threads.submit(here.matches, "x", None).result(10) is False


def test_without_a_descriptor_for_the_line_it_is_unavailable(passwords):
    """Too many open files: 503, and no place is taken."""

    def ask():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            return passwords.matches("x", None)
        except Unavailable:
            return "unavailable"

    assert Forked(ask).result() == "unavailable"


def test_a_place_is_given_back_whatever_happens(monkeypatch):
    """A run that fails leaves the line as it was."""
    locks = ByteLocks()
    passwords = Passwords(4, 1, locks, max_waiting=0)
    with monkeypatch.context() as broken, ThreadPoolExecutor(1) as threads:
        broken.setattr(bcrypt, "hashpw", lambda password, salt: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            threads.submit(passwords.hash, "a password").result()
        assert locks.own().count_others(*EVERYWHERE) == 0  # though the thread is still there
    assert passwords.matches("a password", passwords.hash("a password"))


def test_threads_do_not_get_in_each_others_way():
    passwords = Passwords(4, slots=4)
    mine = [f"the password of {number}" for number in range(8)]
    hashes = at_once([lambda text=text: passwords.hash(text) for text in mine])
    for text, hashed in zip(mine, hashes, strict=True):
        assert [passwords.matches(other, hashed) for other in mine] == [other == text for other in mine]
