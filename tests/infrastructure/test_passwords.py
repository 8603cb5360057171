"""bcrypt over a pre-hash, few at once. A test that has to hold bcrypt back does so at bcrypt's own function."""

import base64
import hashlib
import hmac
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import bcrypt
import pytest

from backend.errors import Unavailable
from backend.infrastructure.byte_locks import ByteLocks
from backend.infrastructure.passwords import Passwords
from tests.at_once import at_once
from tests.forked import Forked, Signal

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


@pytest.mark.parametrize(("now", "outdated"), [(4, False), (5, True), (12, True)])
def test_a_hash_is_outdated_once_the_cost_has_changed(passwords, now, outdated):
    assert Passwords(now).outdated(passwords.hash("a password")) is outdated


class HeldBcrypt:
    """bcrypt that does not end before it may, and knows how many runs there are at once."""

    def __init__(self):
        self.may_end, self.two_run = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0

    def __call__(self, password, salt):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
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


@pytest.mark.parametrize(("slots", "admitted"), [(1, 1), (1, 4), (2, 6), (4, 12)])
def test_past_a_short_queue_everybody_is_turned_away_at_once(held, slots, admitted):
    """Some run, some wait, and all others have their Unavailable while nobody has finished yet."""
    passwords, outcomes = Passwords(4, slots, admitted), Queue()

    def ask():
        try:
            outcomes.put(passwords.matches("x", None) is False)
        except Unavailable as error:
            outcomes.put(error)

    with ThreadPoolExecutor(20) as threads:
        for _ in range(20):
            threads.submit(ask)
        turned_away = [outcomes.get(timeout=10) for _ in range(20 - admitted)]
        finished_early = outcomes.qsize()
        held.may_end.set()
        others = [outcomes.get(timeout=10) for _ in range(admitted)]
    assert all(isinstance(error, Unavailable) and int(error.headers["Retry-After"]) >= 1 for error in turned_away)
    assert (finished_early, others) == (0, [True] * admitted)
    assert held.most <= slots


def test_workers_share_the_slots_of_the_machine(held):
    """Two of them with places for two runs: never more than two at once, and all get their turn."""
    locks = ByteLocks()
    workers = [Passwords(4, 2, 4, locks) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(worker.matches, "x", None) for worker in workers * 4]
        assert held.two_run.wait(10)
        held.may_end.set()
        assert [one.result() for one in asked] == [False] * 8
    assert held.most == 2


def test_the_slot_of_a_killed_worker_is_free_again(held):
    """The kernel gives it back."""
    locks, started = ByteLocks(), Signal()

    def never_end():
        bcrypt.checkpw = lambda password, salt: (started.say(), time.sleep(30))  # in the child alone
        Passwords(4, 1, 1, locks).matches("x", None)

    child = Forked(never_end)
    started.wait()
    held.may_end.set()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(Passwords(4, 1, 1, locks).matches, "x", None)
        assert held.running == 0 and not asked.done()
        child.kill()
        assert asked.result(10) is False


def test_a_place_is_given_back_whatever_happens(passwords, monkeypatch):
    """Runs that fail, more than there are places, keep nobody out."""
    with monkeypatch.context() as broken:
        broken.setattr(bcrypt, "hashpw", lambda password, salt: 1 / 0)
        for _ in range(10):
            with pytest.raises(ZeroDivisionError):
                passwords.hash("a password")
    assert passwords.matches("a password", passwords.hash("a password"))


def test_threads_do_not_get_in_each_others_way():
    passwords = Passwords(4, slots=4, admitted=8)
    mine = [f"the password of {number}" for number in range(8)]
    hashes = at_once([lambda text=text: passwords.hash(text) for text in mine])
    for text, hashed in zip(mine, hashes, strict=True):
        assert [passwords.matches(other, hashed) for other in mine] == [other == text for other in mine]
