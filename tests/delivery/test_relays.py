"""Several relays on one database: one delivers at a time, and another goes on when it is killed, stops or hangs."""

import random
import sqlite3
import threading
from collections import defaultdict

from backend.delivery import lease
from backend.delivery import relay as relays
from backend.infrastructure.ids import new_id
from backend.services.events import DeliveryFailed, Subscriber
from tests.at_once import at_once
from tests.delivery.relaying import Inbox
from tests.forked import Forked, Signal
from tests.production.gunicorn_server import wait_until


def test_only_the_holder_of_the_lease_delivers(process):
    """Two processes that wake for each commit never deliver at the same time, and nothing twice."""
    inside, most = threading.Semaphore(1), []

    def deliver(event):
        most.append(inside.acquire(blocking=False))
        threading.Event().wait(0.002)
        inside.release()

    two = [process(Subscriber("inbox", deliver)) for _ in range(2)]
    for each in two:
        each.relay.start()
    for _ in range(25):
        for each in two:
            each.publish("a")
    wait_until(lambda: not two[0].owed())
    assert most == [True] * 50


def test_a_holder_that_says_nothing_is_followed_after_its_lease(process):
    """Not before; and what it had not marked is delivered again."""
    now = [1000.0]
    hanging, successor = Inbox(), Inbox()
    hanging.open.clear()
    first = process(hanging, monotonic=lambda: now[0])  # so it cannot renew: for it, time stands still
    first.relay.start()
    first.publish("a")
    wait_until(lambda: first.rows("SELECT count(*) FROM leases") == [(1,)])
    later = [now[0] + lease.LEASE_SECONDS - 0.1]
    second = process(successor, monotonic=lambda: later[0])
    assert not second.relay._lease.hold()
    second.relay.start()
    later[0] += 0.2
    wait_until(lambda: successor.got == [("a", 1)])
    hanging.open.set()


def test_while_a_delivery_takes_long_the_lease_is_renewed(process, monkeypatch):
    monkeypatch.setattr(relays, "RENEW_SECONDS", 0.01)
    now = [1000.0]
    hanging = Inbox()
    hanging.open.clear()
    one = process(hanging, monotonic=lambda: now[0])
    one.relay.start()
    one.publish("a")
    for _ in range(3):
        wait_until(lambda: one.rows("SELECT expires_at FROM leases") == [((now[0] + lease.LEASE_SECONDS) * 1000,)])
        now[0] += lease.RENEW_SECONDS + 0.5
    hanging.open.set()


def test_a_lease_from_before_the_machine_started_has_lapsed(process):
    """The monotonic clock has begun anew, so its end seems far away."""
    before, after = process(Inbox(), monotonic=lambda: 1e6), process(Inbox(), monotonic=lambda: 5.0)
    assert before.relay._lease.hold()
    assert after.relay._lease.hold()
    assert not process(Inbox(), monotonic=lambda: 6.0).relay._lease.hold()


def test_a_lease_that_is_lost_in_the_middle_of_a_batch_ends_it(process, monkeypatch):
    """The first process hangs in its first delivery for longer than the lease; the second one takes over."""
    monkeypatch.setattr(relays, "BATCH_SECONDS", 60)
    now, hanging, successor = [1000.0], Inbox(), Inbox()
    hanging.open.clear()
    first = process(hanging, monotonic=lambda: now[0])
    first.publish("a", "b", "c")
    first.relay.start()
    wait_until(lambda: first.rows("SELECT count(*) FROM leases") == [(1,)])
    second = process(successor, monotonic=lambda: now[0])
    second.relay._lease._clock = lambda: now[0] + lease.LEASE_SECONDS
    second.relay.start()
    wait_until(lambda: len(successor.got) == 3)
    now[0] += lease.LEASE_SECONDS
    hanging.open.set()
    wait_until(lambda: hanging.got == [("a", 1)])
    first.relay.stop()
    assert hanging.got == [("a", 1)]


def test_of_many_who_want_the_lease_one_has_it(process):
    many = [process(Inbox()) for _ in range(8)]
    assert sorted(at_once(each.relay._lease.hold for each in many)) == [False] * 7 + [True]


def test_who_stops_gives_the_lease_back(process):
    inbox = Inbox()
    first, second = process(inbox), process(inbox)
    first.relay.start()
    first.publish("a")
    wait_until(lambda: not first.owed())
    first.relay.stop()
    assert second.relay._lease.hold()


def test_who_has_stopped_delivers_nothing(process):
    inbox = Inbox()
    one = process(inbox)
    one.relay.start()
    one.relay.stop()
    one.publish("a")
    assert not any(thread.is_alive() for thread in one.relay._threads)
    assert inbox.got == []


def test_who_is_killed_after_delivering_is_followed_by_one_who_delivers_again(process, clock):
    """At least once, and from there on in order. The child dies with its event delivered and not marked."""
    delivered = Signal()

    def deliver(event):
        delivered.say()
        threading.Event().wait()

    child_side = process(Subscriber("inbox", deliver))
    child_side.publish("a", "a")
    child = Forked(lambda: (child_side.relay.start(), threading.Event().wait()))
    delivered.wait()
    child.kill()
    inbox = Inbox()
    lapsed = process(inbox, monotonic=lambda: threading.TIMEOUT_MAX)  # long after
    lapsed.relay.start()
    wait_until(lambda: inbox.numbers("a") == [1, 2])


def test_a_fork_brings_no_relay_along(process):
    """In the child nothing runs until it starts its own; the parent's goes on."""
    inbox, arrived = Inbox(), threading.Event()
    one = process(inbox)
    one.relay.start()
    assert Forked(lambda: (one.relay.started, threading.active_count())).result() == (False, 1)
    assert one.relay.started
    one.publish("a")
    wait_until(lambda: inbox.got == [("a", 1)])
    other = process(Subscriber("inbox", lambda _: arrived.set()))
    one.relay.stop()  # SQLite survives no fork in the middle of its work
    child = Forked(lambda: (other.relay.start(), other.publish("b"), arrived.wait(10), other.relay.stop()))
    assert child.result() == (None, None, True, None)


def test_what_is_recorded_is_recorded_once_by_however_many(process, monkeypatch):
    """Four relays at once, without the lease, which a fifth has; mark and effect are one transaction."""
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0)
    assert process(Inbox()).relay._lease.hold()
    recorded = Subscriber(
        "ledger",
        record=lambda tx, events: tx.run_each(
            "INSERT INTO audit VALUES (:id, NULL, 'x', 'x', 'x', 'x', :n)",
            ({"id": new_id(), "n": event.payload["number"]} for event in events),
        ),
    )
    four = [process(recorded) for _ in range(4)]
    for each in four:
        each.relay.start()
    at_once(lambda each=each: [each.publish(f"{n}") for n in range(25)] for each in four)
    wait_until(lambda: not four[0].owed(), seconds=lease.LEASE_SECONDS - 2)
    assert four[0].rows("SELECT created_at, count(*) FROM audit GROUP BY 1") == [(n, 4) for n in range(1, 26)]


def test_a_database_that_is_busy_delays_and_loses_nothing(process, database_path):
    """An outsider holds the write lock: there is no lease to be had, and nothing is delivered; then it goes on."""
    inbox = Inbox()
    one = process(inbox, busy_timeout=0.1)
    one.publish("a")
    outsider = sqlite3.connect(database_path, isolation_level=None)
    outsider.execute("BEGIN IMMEDIATE")
    assert not one.relay._lease.hold()
    one.relay.start()
    threading.Event().wait(0.3)
    assert inbox.got == []
    outsider.execute("ROLLBACK")
    outsider.close()
    wait_until(lambda: inbox.got == [("a", 1)])


def test_every_aggregate_is_in_order_under_failures_at_random(process, clock, monkeypatch):
    """Eight writers in two processes, every third delivery fails; each aggregate's first arrivals are in order."""
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0)
    chance, arrived, lock = random.Random(7), defaultdict(list), threading.Lock()

    def deliver(event):
        with lock:
            if chance.random() < 0.3:
                clock.advance(2)
                raise DeliveryFailed("by chance")
            arrived[event.resource_id].append(event.id)

    two = [process(Subscriber("inbox", deliver)) for _ in range(2)]
    for each in two:
        each.relay.start()
    at_once(lambda n=n: [two[n % 2].publish(f"{n % 3}") for _ in range(10)] for n in range(8))

    def nudge():
        clock.advance(10)
        return not two[0].owed()

    wait_until(nudge, seconds=30)
    committed = defaultdict(list)
    for resource_id, event_id in two[0].rows("SELECT resource_id, id FROM outbox ORDER BY seq"):
        committed[resource_id].append(event_id)
    assert {key: list(dict.fromkeys(ids)) for key, ids in arrived.items()} == committed


def test_many_events_of_one_aggregate_stay_in_order(process, monkeypatch):
    """More than a batch, from two processes that commit in turn."""
    monkeypatch.setattr(relays, "BATCH", 10)
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0)
    inbox = Inbox()
    two = process(inbox), process(inbox, wakes=False)
    for each in two:
        each.relay.start()
    for number in range(1, 61):
        for each in two:
            each.number = 10 * number
            each.publish("a")
    wait_until(lambda: len(inbox.got) == 120)
    assert inbox.numbers("a") == sorted(inbox.numbers("a"))


def test_what_could_not_be_marked_is_delivered_again(process, database_path, caplog):
    """An outsider has the write lock just then; the fault is no surprise, so the log has no traceback."""
    outsider = sqlite3.connect(database_path, isolation_level=None, check_same_thread=False)
    delivered = []

    def deliver(event):
        delivered.append(event.id)
        if len(delivered) == 1:
            outsider.execute("BEGIN IMMEDIATE")

    one = process(Subscriber("inbox", deliver), busy_timeout=0.1)
    one.publish("a")
    one.relay.start()
    wait_until(lambda: "database fault" in caplog.text)
    outsider.execute("ROLLBACK")
    outsider.close()
    wait_until(lambda: not one.owed())
    assert len(delivered) >= 2
    assert len(set(delivered)) == 1
    assert "unforeseen" not in caplog.text
