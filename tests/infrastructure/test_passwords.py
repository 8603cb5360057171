"""bcrypt over a pre-hash, a few at once: what both versions promise in one process. (Over several: tests/production.)

A test that has to hold bcrypt back does so at bcrypt's own function.
"""

import base64
import hashlib
import hmac
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import bcrypt
import pytest

from backend.errors import RateLimited, Unavailable
from backend.infrastructure.rate_limiter import Policy, RateLimiter
from backend.web.counts import Count
from tests.at_once import at_once
from tests.held_bcrypt import HeldBcrypt
from tests.waiting import wait_until
from tests.wirings import passwords_class

CONTEXT = b"reference-backend password v1"
PATIENCE = 60  # seconds: longer than a busy machine delays a test


@pytest.fixture
def kind(wiring):
    """The wiring's `Passwords`."""
    return passwords_class(wiring)


@pytest.fixture
def passwords(kind):
    return kind(rounds=4)


def test_a_hash_is_bcrypts_of_the_prehash(passwords):
    """base64(HMAC-SHA-384(context, UTF-8)) at the cost that was asked for: 64 bytes, of which bcrypt reads all."""
    hashed = passwords.hash("crème brûlée")
    prehash = base64.b64encode(hmac.digest(CONTEXT, "crème brûlée".encode(), hashlib.sha384))
    assert len(prehash) == 64
    assert hashed.startswith("$2b$04$") and bcrypt.checkpw(prehash, hashed.encode())


def test_old_hashes_stay_valid(passwords):
    """They were made by the first version of this code. Another pre-hash would lock every user out."""
    old = "$2b$04$ta484Xa7RbPra1UMmkTl3u6qbAGALctOwrc4QhmY3qts8nrQ3656u"
    assert passwords.matches("correct horse battery staple", old)
    assert not passwords.matches("correct horse battery stapler", old)


def test_a_bcrypt_hash_without_the_prehash_matches_nothing(passwords):
    """A hash of the password itself or of its plain digest, for example stolen from another service, does not match."""
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


@pytest.mark.parametrize("no_hash", [None, "!", ""])
def test_without_a_hash_nothing_matches_but_a_run_is_paid(kind, passwords, monkeypatch, no_hash):
    """An unknown user costs one run at today's cost, the first time as every other time."""
    costs = []
    checkpw = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, salt: costs.append(salt[:7]) or checkpw(password, salt))
    for password in ("x", "any at all", "!", ""):
        assert not passwords.matches(password, no_hash)
    assert costs == [b"$2b$04$"] * 4
    assert not kind(rounds=5).matches("x", no_hash)
    assert costs[-1] == b"$2b$05$"


@pytest.mark.parametrize("rounds", [4, 5, 7])
def test_a_wrong_password_costs_as_much_for_a_hash_of_a_lower_cost(kind, passwords, monkeypatch, rounds):
    """The total is the cost for an unknown user; otherwise the time would reveal the hash and its cost."""
    hashed, work = passwords.hash("the password"), []
    for name in ("checkpw", "hashpw"):
        run = getattr(bcrypt, name)
        monkeypatch.setattr(
            bcrypt, name, lambda text, salt, run=run: work.append(2 ** int(salt.split(b"$")[2])) or run(text, salt)
        )
    later = kind(rounds)
    for check in (later.matches, later.renewed, lambda wrong, of: later.replaced(wrong, of, "the new one")):
        for one in (hashed, None, "!"):
            work.clear()
            assert not check("a wrong one", one)
            assert sum(work) == 2**rounds


@pytest.mark.parametrize(("now", "outdated"), [(4, False), (5, True), (12, True)])
def test_a_hash_is_outdated_once_the_cost_has_changed(kind, passwords, now, outdated):
    assert kind(now).outdated(passwords.hash("a password")) is outdated


def test_replaced_is_a_hash_of_the_new_password_for_the_right_one_alone(passwords):
    old = passwords.hash("the old one")
    new = passwords.replaced("the old one", old, "the new one")
    assert passwords.matches("the new one", new) and not passwords.matches("the old one", new)
    for wrong, hashed in (("the new one", old), ("the old one", None), ("the old one", "!")):
        assert passwords.replaced(wrong, hashed, "the new one") is None


@pytest.fixture
def wrong():
    """A count of ten wrong passwords."""
    return Count(RateLimiter(clock=lambda: 10**15), Policy("wrong", 10, 60), "a")


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


def test_renewed_keeps_a_hash_of_todays_cost_and_replaces_another(kind, passwords):
    hashed = passwords.hash("the password")
    assert passwords.renewed("the password", hashed) == hashed
    renewed = kind(5).renewed("the password", hashed)
    assert renewed.startswith("$2b$05$") and passwords.matches("the password", renewed)
    for hashed_of_it in (hashed, None, "!"):
        assert kind(5).renewed("another", hashed_of_it) is None


@pytest.fixture
def held(monkeypatch):
    held = HeldBcrypt()
    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield held
    held.may_end.set()


@pytest.fixture
def threads(held):
    with ThreadPoolExecutor(80) as threads:
        yield threads
        held.may_end.set()


def assert_unavailable(asked):
    with pytest.raises(Unavailable) as refused:
        asked.result(30)
    return int(refused.value.headers["Retry-After"])


@pytest.mark.parametrize(("slots", "max_waiting"), [(1, 0), (1, 4), (2, 6), (4, 12), (2, 64)])
def test_a_full_queue_refuses_the_next_call_at_once_and_no_waiting_one(kind, held, threads, slots, max_waiting):
    """The one call too many is refused while the others wait or run; once they end, there is room again."""
    passwords = kind(4, slots, max_waiting=max_waiting, timeout=PATIENCE)
    asked = {threads.submit(passwords.matches, "x", None) for _ in range(slots + max_waiting + 1)}
    (refused,), others = wait(asked, 30, FIRST_COMPLETED)
    assert assert_unavailable(refused) == PATIENCE
    assert assert_unavailable(threads.submit(passwords.matches, "x", None)) == PATIENCE
    assert not any(one.done() for one in others)
    wait_until(lambda: held.running == slots)
    held.may_end.set()
    assert [one.result(30) for one in others] == [False] * (slots + max_waiting)
    assert held.most == slots
    assert passwords.matches("x", None) is False


def test_the_queue_tells_how_many_calls_run_and_how_many_wait(kind, held, threads):
    passwords = kind(4, 2)
    assert passwords.queue() == (0, 0)
    asked = [threads.submit(passwords.matches, "x", None) for _ in range(5)]
    wait_until(lambda: passwords.queue() == (2, 3))
    held.may_end.set()
    wait(asked)
    assert passwords.queue() == (0, 0)


def test_of_many_concurrent_calls_no_more_run_than_there_are_slots(kind, monkeypatch):
    """Short runs, which end while other calls join the line."""
    runs = HeldBcrypt(seconds=0.001)
    monkeypatch.setattr(bcrypt, "checkpw", runs)
    passwords = kind(4, 2, timeout=PATIENCE)
    assert at_once([lambda: passwords.matches("x", None)] * 40) == [False] * 40
    assert runs.most <= 2


def test_a_call_that_waits_too_long_leaves_the_queue(kind, held, threads):
    """It raises Unavailable, and not before its time; its place becomes free, and the run goes on."""
    passwords = kind(4, 1, max_waiting=1, timeout=0.3)
    running = threads.submit(passwords.matches, "x", None)
    assert held.one_runs.wait(30)
    for _ in range(2):
        began = time.monotonic()
        assert assert_unavailable(threads.submit(passwords.matches, "x", None)) == 1
        assert time.monotonic() - began >= 0.3
    assert not running.done()
    held.may_end.set()
    assert running.result(30) is False


def test_a_run_may_take_longer_than_a_call_may_wait(kind, held, threads):
    asked = threads.submit(kind(4, 1, timeout=0.01).matches, "x", None)
    assert wait([asked], 0.05).done == set()
    held.may_end.set()
    assert asked.result(30) is False


@pytest.mark.parametrize(("call", "more"), [("replaced", ["a new one"]), ("renewed", [])])
def test_a_call_waits_once_for_its_two_runs(kind, passwords, monkeypatch, call, more):
    """It keeps its slot for both, so it cannot be refused in between."""
    later, turns = kind(5), []
    real = later.turn
    monkeypatch.setattr(later, "turn", lambda: turns.append(call) or real())
    hashed = getattr(later, call)("the password", passwords.hash("the password"), *more)
    assert (hashed[:7], turns) == ("$2b$05$", [call])


def test_a_waiting_call_counts_nothing_and_one_that_runs_counts_until_it_has_succeeded(kind, held, threads, wrong):
    passwords = kind(4, 1, max_waiting=2, timeout=PATIENCE)
    asked = {threads.submit(passwords.matches, "x", None, wrong) for _ in range(4)}
    (refused,), others = wait(asked, 30, FIRST_COMPLETED)
    assert_unavailable(refused)
    assert held.one_runs.wait(30)
    wrong.peek()
    assert wrong.result.remaining == 9
    held.may_end.set()
    assert [one.result(30) for one in others] == [False] * 3
    wrong.peek()
    assert wrong.result.remaining == 7


def test_a_run_that_fails_gives_its_place_back(kind, monkeypatch):
    passwords = kind(4, 1, max_waiting=0)
    with monkeypatch.context() as broken:
        broken.setattr(bcrypt, "hashpw", lambda password, salt: 1 / 0)
        with ThreadPoolExecutor(1) as threads:
            with pytest.raises(ZeroDivisionError):
                threads.submit(passwords.hash, "a password").result()
            # The thread that failed still lives.
            assert at_once([lambda: passwords.matches("a password", None)]) == [False]
    assert passwords.matches("a password", passwords.hash("a password"))


def test_threads_do_not_disturb_each_other(kind):
    passwords = kind(4, slots=4)
    mine = [f"the password of {number}" for number in range(8)]
    hashes = at_once([lambda text=text: passwords.hash(text) for text in mine])
    for text, hashed in zip(mine, hashes, strict=True):
        assert [passwords.matches(other, hashed) for other in mine] == [other == text for other in mine]
