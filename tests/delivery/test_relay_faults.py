"""What the relay does when something fails that should not: no thread ends, and no other subscriber notices."""

import sqlite3
import threading
from contextlib import contextmanager

import pytest

from backend.delivery import relay as relays
from backend.delivery.lease import LEASE_SECONDS, RENEW_SECONDS, Lease
from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.services.events import Subscriber
from tests.delivery.relaying import Inbox
from tests.production.gunicorn_server import wait_until

UNFORESEEN = [MemoryError, SystemExit, ValueError, sqlite3.ProgrammingError]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)


def failing_at_first(error, then=lambda *_: None):
    """A function that raises when it is called for the first time."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise error("top secret")
        then(*arguments)

    return call


@pytest.mark.parametrize("error", UNFORESEEN)
def test_a_recorder_that_fails_records_later(process, error):
    recorded = []
    one = process(Subscriber("ledger", record=failing_at_first(error, lambda _, events: recorded.extend(events))))
    one.publish("a")
    one.relay.start()
    wait_until(lambda: [event.resource_id for event in recorded] == ["a"])


@pytest.mark.parametrize("error", UNFORESEEN)
def test_a_delivery_that_fails_in_whatever_way_is_one_failed_try(process, clock, error):
    """It is tried again after its pause, and what is behind it in the batch is delivered now."""
    arrived = []
    one = process(Subscriber("inbox", failing_at_first(error, lambda event: arrived.append(event.resource_id))))
    one.publish("a", "b")
    one.relay.start()
    wait_until(lambda: arrived == ["b"])
    wait_until(lambda: one.rows("SELECT resource_id, tries FROM deliveries JOIN outbox USING (seq)") == [("a", 1)])
    clock.advance(2)
    wait_until(lambda: arrived == ["b", "a"])


@pytest.mark.parametrize("error", UNFORESEEN)
@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_a_database_that_fails_in_a_way_of_its_own_delays_and_loses_nothing(process, monkeypatch, caplog, verb, error):
    """Every thread of the relay meets it once, and goes on."""
    inbox, recorded = Inbox(), []
    one = process(inbox, Subscriber("ledger", record=lambda _, events: recorded.extend(events)))
    process(Inbox("gone")).publish("a")
    one.publish("a")
    met, working = {threading.get_ident()}, getattr(one.database, verb)  # the test's own thread meets none

    def failing():
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            raise error
        return working()

    monkeypatch.setattr(one.database, verb, failing)
    one.relay.start()
    wait_until(lambda: not one.owed() and inbox.got[-1:] == [("a", 1)] and len(recorded) == 1)
    assert len(met) >= 3
    assert "unforeseen error" in caplog.text


def test_who_cannot_say_what_it_wants_is_owed_everything(process, caplog):
    """Its fault harms neither the write that the event tells of nor the other subscribers."""

    def wants(event):
        raise LookupError

    strange, other = Inbox("strange", wants=wants), Inbox("other")
    one = process(strange, other)
    one.relay.start()
    one.publish("a")
    wait_until(lambda: strange.got == other.got == [("a", 1)])
    assert "strange cannot say whether it wants thing.done" in caplog.text


def test_a_listener_that_fails_keeps_no_other_from_hearing(process, caplog):
    """The write stands, and the log says which event it was."""
    heard = []
    one = process()
    one.events.listen(failing_at_first(ValueError))
    one.events.listen(lambda event: heard.append(event.resource_id))
    one.publish("a", "b")
    assert heard == ["a", "b"]
    assert "a listener failed on thing.done" in caplog.text


def test_each_subscriber_has_tries_of_its_own(process, clock):
    """One fails again and again, another hangs meanwhile, and a third has its event after one failure."""
    failing, hanging, third = Inbox("failing"), Inbox("hanging"), Inbox("third")
    failing.failing.add("a")
    third.failing.add("a")
    hanging.open.clear()
    one = process(failing, hanging, third)
    one.publish("a")
    one.relay.start()
    wait_until(lambda: len(third.got) == 1)
    third.failing.clear()
    wait_until(lambda: clock.advance(1) or (len(failing.got) >= 4 and len(third.got) == 2))
    one.relay.stop()
    rows = dict(one.rows("SELECT subscriber, tries FROM deliveries"))
    assert rows == {"failing": len(failing.got), "hanging": 0}
    hanging.open.set()


def test_what_a_slow_receiver_has_taken_is_marked_every_second(process):
    """So a kill makes it take no more than a second's worth again, however large the batch."""
    now, owed = [1000.0], []

    def deliver(event):
        owed.append(len(one.owed()))
        now[0] += 0.6

    one = process(Subscriber("slow", deliver), monotonic=lambda: now[0])
    one.publish(*"abcdef")
    one.relay.start()
    wait_until(lambda: not one.owed())
    assert owed == [6, 6, 4, 4, 2, 2]


def test_a_stuck_subscriber_is_seen_behind_one_that_is_up_to_date(process, clock):
    """Whichever of the two comes first."""
    for names in (("stuck", "fresh"), ("fresh", "stuck")):
        stuck, fresh = (Inbox(f"{name} {names[0]}") for name in ("stuck", "fresh"))
        stuck.open.clear()
        one = process(*(stuck if name == "stuck" else fresh for name in names))
        one.relay.start()
        one.publish("a")
        wait_until(lambda: fresh.got)  # noqa: B023 - called at once, in this turn
        clock.advance(61)
        one.publish("b")
        with pytest.raises(Unavailable):
            one.relay.check_lag()
        stuck.open.set()
        wait_until(lambda: not one.owed())  # noqa: B023 - called at once, in this turn
        one.relay.check_lag()
        one.relay.stop()


def test_a_lag_is_told_within_a_second(process, clock, monkeypatch):
    """However often it looks again."""
    slept = []
    monkeypatch.setattr(relays.time, "sleep", slept.append)
    one = process(Inbox())
    one.publish("a")
    clock.advance(61)
    with pytest.raises(Unavailable):
        one.relay.check_lag()
    assert sum(slept) < 0.8


@pytest.mark.parametrize("refused", range(4))
def test_threads_that_cannot_be_started_are_asked_for_again(process, monkeypatch, refused):
    """Those that could are not started twice: each event is delivered once, by one thread."""
    real, started, refuse = threading.Thread.start, [], [True]

    def start(thread):
        if refuse[0] and len(started) == refused:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    first, second = Inbox("first"), Inbox("second")
    one = process(first, second)
    monkeypatch.setattr(threading.Thread, "start", start)
    one.relay.start()
    assert not one.relay.started
    assert len(started) == refused
    refuse[0] = False
    one.relay.start()
    one.relay.start()
    assert one.relay.started
    assert len(started) == 4
    one.publish("a")
    wait_until(lambda: first.got == second.got == [("a", 1)])


def test_a_request_is_answered_although_the_relay_cannot_be_started(make_api, monkeypatch):
    """A later one starts it."""
    real = threading.Thread.start

    def start(thread):
        if thread.name != "log":
            raise RuntimeError("can't start new thread")
        real(thread)

    api = make_api()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert api.get("//healthz").status_code == 200
    assert not api.app.relay.started
    admin = api.admin()
    wait_until(lambda: len(api.get("/audit", admin).json["data"]) == 3)


def test_a_lease_that_once_cannot_be_renewed_is_renewed_later(process, monkeypatch):
    """By the thread that keeps it while a delivery hangs, whatever it met before."""
    monkeypatch.setattr(relays, "RENEW_SECONDS", 0.01)
    inbox, holds, real = Inbox(), [], Lease.hold
    inbox.open.clear()
    one = process(inbox)
    one.publish("a")

    def hold(lease):
        holds.append(threading.current_thread())
        if len(holds) in (3, 5):  # the first two are the delivering thread's
            raise SystemExit
        return real(lease)

    monkeypatch.setattr(Lease, "hold", hold)
    one.relay.start()
    wait_until(lambda: len(holds) > 8)
    assert len(set(holds)) == 2
    inbox.open.set()


def test_the_lease_stays_while_a_delivery_runs_on_after_the_stop(process, monkeypatch):
    """Else another process would deliver beside it."""
    monkeypatch.setattr(relays, "STOP_SECONDS", 0.05)
    hanging = Inbox()
    hanging.open.clear()
    one, other = process(hanging), process(Inbox())
    one.publish("a")
    one.relay.start()
    wait_until(lambda: one.rows("SELECT count(*) FROM leases") == [(1,)])
    one.relay.stop()
    assert not Lease(other.database, "relay").hold()
    hanging.open.set()
    wait_until(lambda: not one.owed())
    one.relay.stop()
    assert Lease(other.database, "relay").hold()


def test_a_stop_in_the_middle_of_a_batch_ends_it(process, monkeypatch):
    """What has been delivered by then is marked."""
    monkeypatch.setattr(relays, "STOP_SECONDS", 0.05)
    hanging = Inbox()
    hanging.open.clear()
    one = process(hanging)
    one.publish("a", "b", "c")
    one.relay.start()
    assert hanging.begun.wait(10)
    one.relay.stop()
    hanging.open.set()
    wait_until(lambda: [seq for _, seq in one.owed()] == [2, 3])
    assert hanging.got == [("a", 1)]


def test_the_batch_is_read_once_the_lease_is_held(process):
    """A process that finds something due waits for the lease; what another has delivered until then it leaves alone."""
    inbox, late, first_is_done = Inbox(), Inbox(), threading.Event()
    first = process(inbox, wakes=False)
    asked = threading.Event()

    def monotonic():
        asked.set()
        first_is_done.wait(10)
        return 1000.0

    second = process(late, monotonic=monotonic, wakes=False)
    first.publish("a")
    second.relay.start()
    assert asked.wait(10)
    first.relay.start()
    wait_until(lambda: not first.owed())
    first.relay.stop()
    first_is_done.set()
    first.publish("b")
    wait_until(lambda: late.got)
    assert (inbox.got, late.got) == ([("a", 1)], [("b", 2)])


class SlowDisk(Database):
    """Each commit takes so long."""

    def __init__(self, path, now, seconds):
        super().__init__(path)
        self._taken = (now, seconds)

    @contextmanager
    def transaction(self):
        with super().transaction() as tx:
            yield tx
        now, seconds = self._taken
        now[0] += seconds


def test_a_lease_that_lapsed_while_it_was_written_is_not_held(database_path):
    """It promises time to work from now on."""
    now = [1000.0]
    slow = SlowDisk(database_path, now, 3.0)
    assert not Lease(slow, "thing", lambda: now[0]).hold()
    quick = SlowDisk(database_path, now, 1.0)
    assert Lease(quick, "other thing", lambda: now[0]).hold()
    slow.close()
    quick.close()


def test_a_holder_whose_lease_has_lapsed_does_not_give_back_its_successors(process):
    now = [1000.0]
    first, second, third = (Lease(process(Inbox()).database, "thing", lambda: now[0]) for _ in range(3))
    assert first.hold()
    now[0] += LEASE_SECONDS
    assert second.hold()
    first.release()
    assert not third.hold()
    second.release()
    assert third.hold()


def test_a_lease_that_was_just_renewed_is_held_without_a_question(process, monkeypatch):
    """It is asked for before each delivery; the database is asked every few seconds."""
    now, one = [1000.0], process(Inbox())
    lease = Lease(one.database, "thing", lambda: now[0])
    assert lease.hold()
    monkeypatch.delattr(Database, "snapshot")
    monkeypatch.delattr(Database, "transaction")
    now[0] += RENEW_SECONDS - 0.01
    assert lease.hold()
    now[0] += 0.01
    assert not lease.hold()


def test_to_wait_for_a_lease_writes_nothing(process, monkeypatch):
    """Each process asks once a second, and the lock is the requests'."""
    now, begun, real = [1000.0], [], Database.transaction
    first, second = (Lease(process(Inbox()).database, "thing", lambda: now[0]) for _ in range(2))
    assert first.hold()
    monkeypatch.setattr(Database, "transaction", lambda *arguments: begun.append(1) or real(*arguments))
    for _ in range(3):
        assert not second.hold()
        now[0] += LEASE_SECONDS / 4
    assert begun == []
    now[0] += LEASE_SECONDS / 4
    assert second.hold()
    assert begun == [1]


@pytest.mark.parametrize("error", [MemoryError, sqlite3.ProgrammingError])
def test_a_lease_of_which_the_database_cannot_say_whose_it_is_is_not_held(process, monkeypatch, error):
    """And held again once it can."""
    one = process(Inbox())
    lease = Lease(one.database, "thing", lambda: 1000.0)

    def snapshot():
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(one.database, "snapshot", snapshot)
        assert not lease.hold()
    assert lease.hold()
