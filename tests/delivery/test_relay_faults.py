"""Unexpected failures inside the relay end no thread and do not affect other subscribers."""

import itertools
import sqlite3
import threading

import pytest

from backend.delivery import relay as relays
from backend.errors import Unavailable
from backend.services.events import Subscriber
from tests.delivery.relaying import Inbox
from tests.waiting import wait_until

UNFORESEEN = [MemoryError, SystemExit, ValueError, sqlite3.ProgrammingError]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)


def failing_at_first(error, then=lambda *_: None):
    """A function that raises on its first call."""
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
def test_a_delivery_that_fails_in_whatever_way_is_one_failed_try(process, standing_clock, error):
    """It is tried again after its pause, and the events behind it in the batch are delivered now."""
    arrived = []
    one = process(Subscriber("inbox", failing_at_first(error, lambda event: arrived.append(event.resource_id))))
    one.publish("a", "b")
    one.relay.start()
    wait_until(lambda: arrived == ["b"])
    wait_until(lambda: one.rows("SELECT resource_id, tries FROM deliveries JOIN outbox USING (seq)") == [("a", 1)])
    standing_clock.advance(2)
    wait_until(lambda: arrived == ["b", "a"])


@pytest.mark.parametrize("error", UNFORESEEN)
@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_an_unexpected_error_of_the_database_delays_but_loses_nothing(process, monkeypatch, caplog, verb, error):
    """Every thread of the relay meets it once and goes on."""
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
    assert "unexpected error" in caplog.text


def test_a_subscriber_whose_wants_raises_is_owed_everything(process, caplog):
    """Its fault affects neither the write that the event describes nor other subscribers."""

    def wants(event):
        raise LookupError

    strange, other = Inbox("strange", wants=wants), Inbox("other")
    one = process(strange, other)
    one.relay.start()
    one.publish("a")
    wait_until(lambda: strange.got == other.got == [("a", 1)])
    assert "strange cannot say whether it wants thing.done" in caplog.text


def test_a_listener_that_fails_does_not_keep_others_from_being_called(process, caplog):
    """The write stands, and the log names the event."""
    heard = []
    one = process()
    one.events.listen(failing_at_first(ValueError))
    one.events.listen(lambda event: heard.append(event.resource_id))
    one.publish("a", "b")
    assert heard == ["a", "b"]
    assert "a listener failed on thing.done" in caplog.text


def test_each_subscriber_has_tries_of_its_own(process, standing_clock):
    """One fails again and again, another one hangs, and a third gets its event after one failure."""
    failing, hanging, third = Inbox("failing"), Inbox("hanging"), Inbox("third")
    failing.failing.add("a")
    third.failing.add("a")
    hanging.open.clear()
    one = process(failing, hanging, third)
    one.publish("a")
    one.relay.start()
    wait_until(lambda: len(third.got) == 1)
    third.failing.clear()
    wait_until(lambda: standing_clock.advance(1) or (len(failing.got) >= 4 and len(third.got) == 2))
    tried = {"failing": len(failing.got), "hanging": 0}  # no more, for the clock stands
    wait_until(lambda: dict(one.rows("SELECT subscriber, tries FROM deliveries")) == tried)
    hanging.open.set()


def test_the_deliveries_of_a_slow_receiver_are_settled_every_second(process):
    """So a kill repeats at most a second's worth, however large the batch."""
    now, owed = [1000.0], []

    def deliver(event):
        owed.append(len(one.owed()))
        now[0] += 0.6

    one = process(Subscriber("slow", deliver), monotonic=lambda: now[0])
    one.publish(*"abcdef")
    one.relay.start()
    wait_until(lambda: not one.owed())
    assert owed == [6, 6, 4, 4, 2, 2]


def test_however_long_a_claim_takes_a_batch_delivers_something(process):
    """A slow disk has used up the time of each batch before it begins."""
    now = itertools.count(0, 10)
    inbox = Inbox()
    one = process(inbox, monotonic=lambda: next(now))
    one.publish("a", "b")
    one.relay.start()
    wait_until(lambda: inbox.got == [("a", 1), ("b", 2)])


def test_a_receiver_that_is_down_is_not_hammered(process, standing_clock, monkeypatch):
    """More than a batch is due, and all of the first batch fails: there is a pause.

    If some are taken, there is none.
    """
    monkeypatch.setattr(relays, "BATCH", 4)
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 60)
    down, up = Inbox("down"), Inbox("up")
    down.failing.update("abcdefgh")
    up.failing.update("abc")
    one = process(down, up)
    one.publish(*"abcdefgh")
    one.relay.start()
    wait_until(lambda: len(up.got) == 8)
    assert len(down.got) <= 4


def test_a_stuck_subscriber_is_seen_behind_one_that_is_up_to_date(process, clock):
    """Whichever of them comes first. The claim of a delivery that hangs must lapse before."""
    for names in (("stuck", "fresh"), ("fresh", "stuck")):
        stuck, fresh = (Inbox(f"{name} {names[0]}") for name in ("stuck", "fresh"))
        stuck.open.clear()
        one = process(*(stuck if name == "stuck" else fresh for name in names))
        one.relay.start()
        one.publish("a")
        wait_until(lambda: fresh.got and stuck.called)  # noqa: B023 - called at once, in this turn
        clock.advance(relays.CLAIM / 1000 + 61)
        one.publish("b")
        with pytest.raises(Unavailable):
            one.relay.check_lag()
        stuck.open.set()
        wait_until(lambda: not one.owed())  # noqa: B023 - called at once, in this turn
        one.relay.check_lag()
        one.relay.stop()


def test_a_lag_is_reported_within_a_second(process, clock, monkeypatch):
    """In spite of the further looks."""
    slept, mine, sleep = [], threading.get_ident(), relays.time.sleep

    def count(seconds):
        (slept.append if threading.get_ident() == mine else sleep)(seconds)

    monkeypatch.setattr(relays.time, "sleep", count)
    one = process(Inbox())
    one.publish("a")
    clock.advance(61)
    with pytest.raises(Unavailable):
        one.relay.check_lag()
    assert sum(slept) < 0.8


@pytest.mark.parametrize("refused", range(3))
def test_threads_that_cannot_be_started_are_started_later(process, monkeypatch, refused):
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
    assert len(started) == 3
    one.publish("a")
    wait_until(lambda: first.got == second.got == [("a", 1)])


def test_a_request_is_answered_although_the_relay_cannot_be_started(make_api, monkeypatch):
    """A later request starts it."""
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


def test_a_stop_in_the_middle_of_a_batch_ends_it(process, monkeypatch):
    """What has been delivered by then is settled."""
    monkeypatch.setattr(relays, "STOP_SECONDS", 0.05)
    hanging = Inbox()
    hanging.open.clear()
    one = process(hanging)
    one.publish("a", "b", "c")
    one.relay.start()
    wait_until(lambda: hanging.called)
    one.relay.stop()
    hanging.open.set()
    wait_until(lambda: [seq for _, seq in one.owed()] == [2, 3])
    assert hanging.got == [("a", 1)]
