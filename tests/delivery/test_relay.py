"""The relay: events are delivered after the commit, in order, at least once, whatever fails meanwhile."""

import threading

import pytest

from backend.delivery import relay as relays
from backend.delivery import retry as tries_policy
from backend.errors import Unavailable
from backend.infrastructure.logs import request_id
from backend.services.events import Subscriber
from tests.at_once import asleep
from tests.delivery.relaying import Inbox
from tests.waiting import wait_until

DAY = 86_400


def test_an_event_is_delivered_once_it_is_committed(process, monkeypatch):
    """At once, without waiting for the poll. Not before the commit, and not after a rollback."""
    monkeypatch.setattr(relays, "POLL_SECONDS", 60)
    inbox = Inbox()
    one = process(inbox)
    one.relay.start()
    with pytest.raises(ZeroDivisionError), one.database.transaction() as tx:
        one.events.publish(tx, "thing.done", ("thing", "a"), None, {"number": 0})
        raise ZeroDivisionError
    one.publish("a", "b")
    wait_until(lambda: inbox.got == [("a", 1), ("b", 2)])
    wait_until(lambda: not one.owed())


def test_what_another_process_commits_is_found_by_polling(process):
    inbox = Inbox()
    process(inbox).relay.start()
    process(inbox).publish("a")
    wait_until(lambda: inbox.got == [("a", 1)])


def test_what_an_earlier_process_left_is_delivered_at_the_start(process):
    inbox = Inbox()
    process(inbox).publish("a")
    process(inbox).relay.start()
    wait_until(lambda: inbox.got == [("a", 1)])


def test_an_event_arrives_as_it_was_published(process):
    arrived = []
    one = process(Subscriber("inbox", arrived.append))
    token = request_id.set("request-1")
    with one.database.transaction() as tx:
        one.events.publish(tx, "thing.done", ("thing", "a"), "ada", {"n": [1, None, "ü"]})
    request_id.reset(token)
    one.relay.start()
    wait_until(lambda: len(arrived) == 1)
    (event,) = arrived
    assert (event.name, event.resource_type, event.resource_id) == ("thing.done", "thing", "a")
    assert (event.user_id, event.request_id, event.payload) == ("ada", "request-1", {"n": [1, None, "ü"]})
    assert event.created_at == tx.now


def test_a_relay_with_nothing_to_do_sleeps(process):
    """Between two looks, in each thread: an idle service uses no CPU."""
    before = set(threading.enumerate())
    one = process(Inbox(), Subscriber("ledger", record=lambda tx, events: None))
    one.publish("a")
    one.relay.start()
    wait_until(lambda: not one.owed())
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    for thread in threads:
        asleep(thread, 0.3)


def test_a_subscriber_is_owed_only_what_it_wants(process):
    all_of_it, few = Inbox("all"), Inbox("few", wants=lambda event: event.resource_id == "b")
    one = process(all_of_it, few)
    one.relay.start()
    one.publish("a", "b", "c")
    wait_until(lambda: not one.owed())
    assert (len(all_of_it.got), few.got) == (3, [("b", 2)])


def test_only_the_same_aggregate_waits_for_a_failed_event(process, clock):
    """While the first event of `a` fails, `b` and the other subscriber get theirs.

    Then those of `a` follow in order.
    """
    inbox, other = Inbox(), Inbox("other")
    inbox.failing.add("a")
    one = process(inbox, other)
    one.relay.start()
    one.publish("a", "b", "a", "b", "a")
    one.publish("a", "b")
    wait_until(lambda: inbox.numbers("b") == [2, 4, 7] and len(other.got) == 7)
    assert set(inbox.numbers("a")) == {1}
    inbox.failing.clear()
    wait_until(lambda: inbox.numbers("a")[-4:] == [1, 3, 5, 6])
    assert other.got == [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5), ("a", 6), ("b", 7)]


def test_a_subscriber_that_hangs_holds_up_no_other(process):
    hanging, other = Inbox("hanging"), Inbox("other")
    hanging.open.clear()
    one = process(hanging, other)
    one.relay.start()
    one.publish("a")
    wait_until(lambda: other.got == [("a", 1)])
    one.publish("b")
    wait_until(lambda: other.got == [("a", 1), ("b", 2)])
    assert hanging.got == []
    hanging.open.set()
    wait_until(lambda: hanging.got == [("a", 1), ("b", 2)])


def test_nothing_is_delivered_inside_a_transaction(process):
    """The subscriber itself can write, and so can other threads."""
    written = []

    def deliver(event):
        with one.database.transaction() as tx:
            written.append(tx.row("SELECT count(*) FROM outbox"))

    one = process(Subscriber("writer", deliver))
    one.relay.start()
    one.publish("a")
    wait_until(lambda: not one.owed())
    assert written == [(1,)]


def test_tries_come_further_and_further_apart(process, standing_clock, monkeypatch):
    """The first retry after 1 s, the next after 2 s, then 4 s …, never after more than 15 min."""
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish("a")
    one.relay.start()
    waits = []
    for tries in range(1, 14):
        wait_until(lambda: one.rows("SELECT tries FROM deliveries") == [(tries,)])  # noqa: B023 - called at once, in this turn
        ((due_at,),) = one.rows("SELECT due_at FROM deliveries")
        waits.append(due_at / 1000 - standing_clock())
        standing_clock.advance(due_at / 1000 - standing_clock())
    assert waits == pytest.approx([min(2**n, 900) for n in range(13)], abs=0.01)


def test_a_retry_is_found_by_polling(process, clock):
    """No commit wakes the relay when the pause is over."""
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.relay.start()
    one.publish("a")
    wait_until(lambda: len(inbox.got) >= 2)


def test_after_the_last_try_it_is_a_dead_letter_and_the_aggregate_goes_on(process, standing_clock, monkeypatch, caplog):
    monkeypatch.setattr(tries_policy, "TRIES", 3)
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish("a")
    one.relay.start()
    for tries in (1, 2):
        wait_until(lambda: one.rows("SELECT tries FROM deliveries") == [(tries,)])  # noqa: B023 - called at once, in this turn
        standing_clock.advance(DAY)
    wait_until(lambda: one.rows("SELECT seq, tries, due_at FROM deliveries") == [(1, 3, None)])
    inbox.failing.clear()
    one.publish("a")
    wait_until(lambda: inbox.numbers("a") == [1, 1, 1, 2])
    wait_until(lambda: one.rows("SELECT seq, tries, due_at FROM deliveries") == [(1, 3, None)])
    wait_until(lambda: any("given up" in record.message for record in caplog.records))
    assert "because the test says so; try 3, given up" in caplog.text


def test_the_log_has_no_foreign_text(process, caplog):
    """A library's message may hold an address, a user name or a secret."""

    def deliver(event):
        raise OSError("top secret")

    one = process(Subscriber("inbox", deliver))
    one.relay.start()
    one.publish("a")
    wait_until(lambda: "for inbox: OSError; try 1, to be tried again" in caplog.text)
    assert "top secret" not in caplog.text


def test_a_clock_that_is_set_back_delays_nothing(process, standing_clock, monkeypatch):
    """A retry that now lies a year ahead is due."""
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    standing_clock.advance(365 * DAY)
    one.publish("a")
    one.relay.start()
    wait_until(lambda: one.rows("SELECT tries FROM deliveries") == [(1,)])
    inbox.failing.clear()
    standing_clock.advance(-365 * DAY)
    wait_until(lambda: not one.owed())
    one.publish("a")
    wait_until(lambda: inbox.numbers("a")[-2:] == [1, 2])


def test_a_subscriber_that_was_removed_is_owed_nothing_more(process):
    """Its deliveries become dead letters, so housekeeping can delete its events."""
    process(Inbox("gone")).publish("a")
    one = process(Inbox("there"))
    one.relay.start()
    one.publish("b")
    wait_until(lambda: one.rows("SELECT subscriber, due_at FROM deliveries") == [("gone", None)])


def test_what_is_due_for_a_minute_is_a_lag_and_what_waits_for_a_retry_is_not(process, standing_clock):
    """So a receiver that is down does not take the service out of rotation, but a relay that does not run does."""
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish("a", "a")
    one.relay.check_lag()
    standing_clock.advance(61)
    with pytest.raises(Unavailable):
        one.relay.check_lag()
    one.relay.start()
    wait_until(lambda: one.rows("SELECT tries FROM deliveries WHERE seq = 1") == [(1,)])
    one.relay.check_lag()
    one.relay.stop()
    standing_clock.advance(10)
    one.relay.check_lag()  # due for 9 s, however old
    standing_clock.advance(61)
    with pytest.raises(Unavailable):
        one.relay.check_lag()
