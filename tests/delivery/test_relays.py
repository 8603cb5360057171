"""Several relays on one database share the work, and one continues what another has left."""

import os
import random
import signal
import sqlite3
import threading
from collections import defaultdict
from contextlib import contextmanager

import pytest

from backend.delivery import relay as relays
from backend.delivery import retry
from backend.delivery.webhooks import TIMEOUT_SECONDS
from backend.infrastructure.ids import new_id
from backend.services.events import DELIVERY_SECONDS, DeliveryFailed, Subscriber
from tests.at_once import at_once
from tests.delivery.relaying import Inbox, Journal
from tests.forked import Forked, Signal
from tests.waiting import wait_until

CLAIM_SECONDS = relays.CLAIM / 1000
YEAR = 365 * 86_400


@pytest.fixture
def quick(monkeypatch):
    for name in ("POLL_SECONDS", "PAUSE_SECONDS", "SHORT_PAUSE_SECONDS"):
        monkeypatch.setattr(relays, name, 0.01)


def test_two_processes_share_the_work_and_deliver_nothing_twice(process, quick):
    """Both wake for each commit.

    At no time do both have the same aggregate, and together they deliver more than one of them.
    """
    arrived, inside, most = [], defaultdict(lambda: threading.Semaphore(1)), []
    both = threading.Barrier(2)

    def deliver(event):
        most.append(inside[event.resource_id].acquire(blocking=False))
        if event.resource_id == "meet":
            both.wait(30)  # passes only if each process delivers one
        threading.Event().wait(0.002)
        arrived.append(event.id)
        inside[event.resource_id].release()

    two = [process(Subscriber("inbox", deliver)) for _ in range(2)]
    for each in two:
        each.relay.start()
    for number in range(25):
        for each in two:
            each.publish("a", "b", f"{number}")
    wait_until(lambda: not two[0].owed())
    assert most == [True] * 150
    assert sorted(arrived) == sorted(event_id for (event_id,) in two[0].rows("SELECT id FROM outbox"))


def test_a_process_that_hangs_holds_up_only_what_it_has_claimed(process, quick):
    hanging, inbox = Inbox(), Inbox()
    hanging.open.clear()
    first, second = process(hanging), process(inbox)
    first.publish("a")
    first.relay.start()
    wait_until(lambda: hanging.called)
    second.relay.start()
    second.publish("a", "b")
    second.publish("b")
    wait_until(lambda: len(inbox.got) == 2)
    assert inbox.got == [("b", 2), ("b", 3)]
    hanging.open.set()
    wait_until(lambda: not first.owed())
    assert sorted(inbox.numbers("a") + hanging.numbers("a")) == [1, 1]  # each process counts its own


def test_what_a_hanging_process_has_claimed_is_delivered_by_another_once_the_claim_has_lapsed(
    process, standing_clock, quick
):
    """Not before; with what waits behind it, in order."""
    hanging, successor = Inbox(), Inbox()
    hanging.open.clear()
    first, second = process(hanging), process(successor)
    first.publish("a", "a", "a")
    first.relay.start()
    wait_until(lambda: hanging.called)
    second.relay.start()
    standing_clock.advance(CLAIM_SECONDS - 5)
    second.publish("b")
    wait_until(lambda: successor.got == [("b", 1)])
    standing_clock.advance(5)
    wait_until(lambda: successor.numbers("a") == [1, 2, 3])
    hanging.open.set()
    first.relay.stop()
    wait_until(lambda: not first.owed())


def test_a_process_whose_claim_has_lapsed_settles_nothing(process, standing_clock, quick):
    """The other process has failed meanwhile, and its next try does not change."""
    hanging, failing = Inbox(), Inbox()
    hanging.open.clear()
    failing.failing.add("a")
    first, second = process(hanging), process(failing)
    first.publish("a", "a")
    first.relay.start()
    wait_until(lambda: hanging.called)
    standing_clock.advance(CLAIM_SECONDS + 1)
    second.relay.start()
    wait_until(lambda: first.rows("SELECT tries FROM deliveries WHERE seq = 1") == [(1,)])
    second.relay.stop()
    before = first.rows("SELECT * FROM deliveries")
    hanging.open.set()
    first.relay.stop()
    assert hanging.got[0] == ("a", 1)
    assert first.rows("SELECT * FROM deliveries") == before


def test_a_slow_delivery_is_not_taken_over_by_a_live_process(process, standing_clock, quick):
    """It may begin at the end of its batch and take as long as a subscriber may; a webhook takes less than that."""
    assert TIMEOUT_SECONDS < DELIVERY_SECONDS
    slow, other = Inbox(), Inbox()
    slow.open.clear()
    first, second = process(slow), process(other)
    first.publish("a")
    first.relay.start()
    wait_until(lambda: slow.called)
    standing_clock.advance(relays.BATCH_SECONDS + DELIVERY_SECONDS - 1)
    second.relay.start()
    second.publish("b")
    wait_until(lambda: other.got)
    slow.open.set()
    wait_until(lambda: not first.owed())
    assert (slow.got, other.got) == ([("a", 1)], [("b", 1)])


def test_what_another_process_has_claimed_since_the_look_is_left_alone(process, monkeypatch):
    """Two processes find an event due, and one of them waits long for the write lock."""
    inbox, late = Inbox(), Inbox()
    first, second = process(inbox, wakes=False), process(late, wakes=False)
    asked, go, written, transaction = threading.Event(), threading.Event(), [], second.database.transaction

    @contextmanager
    def waiting():
        asked.set()
        assert go.wait(30)
        with transaction() as tx:
            yield tx
        written.append(tx)

    monkeypatch.setattr(second.database, "transaction", waiting)
    first.publish("a")
    second.relay.start()
    assert asked.wait(30)
    first.relay.start()
    wait_until(lambda: not first.owed())
    first.relay.stop()
    go.set()
    wait_until(lambda: written)
    first.publish("b")
    wait_until(lambda: not first.owed())
    second.relay.stop()
    assert (inbox.got, late.got) == ([("a", 1)], [("b", 2)])
    assert len(written) == 3  # a claim in vain; the claim of b, and what came of it


def test_what_a_stopped_process_has_not_delivered_is_due_for_another_at_once(process, quick, monkeypatch):
    """In the middle of its batch, long before the claim would lapse."""
    monkeypatch.setattr(relays, "STOP_SECONDS", 0.01)
    hanging, successor = Inbox(), Inbox()
    hanging.open.clear()
    first, second = process(hanging), process(successor)
    first.publish("a", "b", "a")
    first.relay.start()
    wait_until(lambda: hanging.called)
    first.relay.stop()
    hanging.open.set()
    second.relay.start()
    wait_until(lambda: not second.owed())
    assert (hanging.got, successor.got) == ([("a", 1)], [("b", 2), ("a", 3)])


def test_a_stop_waits_until_the_delivery_under_way_is_settled(process, quick):
    delivering = threading.Event()

    def deliver(_):
        delivering.set()
        threading.Event().wait(0.2)

    one = process(Subscriber("inbox", deliver))
    one.publish("a")
    one.relay.start()
    assert delivering.wait(60)
    one.relay.stop()
    assert not one.owed()


def test_a_stopped_relay_delivers_nothing(process):
    inbox = Inbox()
    before = set(threading.enumerate())
    one = process(inbox)
    one.relay.start()
    one.relay.stop()
    one.publish("a")
    assert set(threading.enumerate()) <= before
    assert inbox.got == []


def test_what_a_killed_process_had_not_settled_is_delivered_again(process, clock):
    """At least once, and from there on in order. The child is killed with its event delivered but not settled."""
    delivered = Signal()

    def deliver(event):
        delivered.say()
        threading.Event().wait()

    def child():
        process(Subscriber("inbox", deliver)).relay.start()
        threading.Event().wait()

    inbox = Inbox()
    one = process(inbox)
    one.publish("a", "a")
    killed = Forked(child)
    delivered.wait()
    killed.kill()
    clock.advance(CLAIM_SECONDS)
    one.relay.start()
    wait_until(lambda: inbox.numbers("a") == [1, 2])


def test_a_process_that_was_stopped_for_a_while_does_no_harm(process, clock, tmp_path, quick):
    """SIGSTOP in the middle of its batch, SIGCONT after another process has delivered all of it and more."""
    journal, delivering, resumed = Journal(tmp_path / "journal"), Signal(), Signal()

    def deliver(event):
        if event.payload["number"] == 2:
            delivering.say()
            resumed.wait()
        journal.deliver(event)

    def child():
        stopped = process(Subscriber("inbox", deliver))
        stopped.relay.start()
        wait_until(lambda: journal.numbers("a").count(2) == 2)
        stopped.relay.stop()

    one = process(Subscriber("inbox", journal.deliver))
    one.publish("a", "a", "a")
    forked = Forked(child)
    delivering.wait()
    os.kill(forked.pid, signal.SIGSTOP)
    clock.advance(CLAIM_SECONDS)
    one.relay.start()
    wait_until(lambda: not one.owed())
    one.relay.stop()
    one.publish("a")
    resumed.say()
    os.kill(forked.pid, signal.SIGCONT)
    forked.result()
    successor = process(Subscriber("inbox", journal.deliver))
    clock.advance(CLAIM_SECONDS)
    successor.relay.start()
    wait_until(lambda: not successor.owed())
    assert list(dict.fromkeys(journal.numbers("a"))) == [1, 2, 3, 4]


def test_every_event_arrives_in_order_although_processes_are_killed(process, monkeypatch, tmp_path, quick):
    """480 events of four threads; two of eight processes deliver at a time, one try in 20 fails; six are killed."""
    monkeypatch.setattr(relays, "CLAIM", 300)
    monkeypatch.setattr(relays, "BATCH", 10)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 50)
    journal = Journal(tmp_path / "journal")

    def deliver(event):
        if random.random() < 0.05:
            raise DeliveryFailed("by chance")
        journal.deliver(event)

    def child(start):
        start.wait()
        process(Subscriber("inbox", deliver)).relay.start()
        threading.Event().wait()

    starts = [Signal() for _ in range(8)]
    children = [Forked(lambda start=start: child(start)) for start in starts]  # before the parent has a connection
    writer = process(Inbox())
    for start in starts[:2]:
        start.say()
    for number in range(6):
        arrived = len(journal.all())
        threads = [
            threading.Thread(target=lambda n=n: [writer.publish(f"{n}", "shared") for _ in range(10)]) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(journal.all()) > arrived + 10)  # noqa: B023 - called at once, in this turn
        children[number].kill()
        starts[number + 2].say()
        for thread in threads:
            thread.join()
    wait_until(lambda: not writer.owed(), 300)
    for each in children[6:]:
        each.kill()
    committed = defaultdict(list)
    for resource_id, event_id in writer.rows("SELECT resource_id, id FROM outbox ORDER BY seq"):
        committed[resource_id].append(event_id)
    assert sum(map(len, committed.values())) == 480
    assert journal.first_arrivals() == committed


def test_a_relay_runs_in_a_forked_child_that_starts_it(process):
    arrived = threading.Event()
    one = process(Subscriber("inbox", lambda _: arrived.set()))
    child = Forked(lambda: (one.relay.start(), one.publish("b"), arrived.wait(30), one.relay.stop()))
    assert child.result() == (None, None, True, None)


def test_a_wall_clock_that_is_set_forward_costs_a_repetition_at_most(process, clock, quick):
    """Every claim seems to have lapsed. The order stays, and nothing is lost or left over."""
    hanging, inbox = Inbox(), Inbox()
    hanging.open.clear()
    first, second = process(hanging), process(inbox)
    first.publish("a", "b", "a")
    first.relay.start()
    wait_until(lambda: hanging.called)
    clock.advance(YEAR)
    second.relay.start()
    wait_until(lambda: not second.owed())
    hanging.open.set()
    first.relay.stop()
    first.publish("a")
    wait_until(lambda: not second.owed())
    assert inbox.numbers("a") == [1, 3, 4]


def test_a_wall_clock_that_is_set_back_delays_no_claim_of_a_killed_process(process, clock, quick):
    """The end of its claim lies a year ahead."""
    hanging, inbox = Inbox(), Inbox()
    hanging.open.clear()
    first, second = process(hanging), process(inbox)
    clock.advance(YEAR)
    first.publish("a", "a")
    first.relay.start()
    wait_until(lambda: hanging.called)  # and stays so, as if it had been killed
    clock.advance(-YEAR)
    second.relay.start()
    wait_until(lambda: inbox.numbers("a") == [1, 2])
    hanging.open.set()


def test_several_relays_record_each_event_once(process, monkeypatch):
    """Four at once, without claims: reading, effect and deleting are one transaction."""
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0)
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
    wait_until(lambda: not four[0].owed())
    assert four[0].rows("SELECT created_at, count(*) FROM audit GROUP BY 1") == [(n, 4) for n in range(1, 26)]


def test_a_database_that_is_busy_delays_and_loses_nothing(process, database_path):
    """Another program holds the write lock: nothing can be claimed, so nothing is delivered. Then it goes on."""
    inbox = Inbox()
    one = process(inbox, busy_timeout=0.1)
    one.publish("a")
    outsider = sqlite3.connect(database_path, isolation_level=None)
    outsider.execute("BEGIN IMMEDIATE")
    one.relay.start()
    threading.Event().wait(0.3)
    assert inbox.got == []
    outsider.execute("ROLLBACK")
    outsider.close()
    wait_until(lambda: inbox.got == [("a", 1)])


def test_every_aggregate_is_in_order_under_failures_at_random(process, clock, quick):
    """Eight writers in two processes, every third delivery fails; each aggregate's first arrivals are in order."""
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

    wait_until(nudge)
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


def test_what_could_not_be_settled_is_delivered_again(process, clock, database_path, caplog):
    """Another program holds the write lock at that moment. The fault is expected, so the log has no traceback."""
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
    clock.advance(CLAIM_SECONDS)
    wait_until(lambda: not one.owed())
    assert len(delivered) == 2
    assert len(set(delivered)) == 1
    assert "unexpected" not in caplog.text
