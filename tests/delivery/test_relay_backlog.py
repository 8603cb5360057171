"""A backlog: looks, writes and pruning cost what is due, not what waits, and the backlog is delivered in order."""

import shutil
import sqlite3

import pytest

from backend.delivery import relay as relays
from backend.delivery import retry as tries_policy
from backend.domain import Event, Timestamp
from backend.errors import Unavailable
from backend.infrastructure.database import Tx
from backend.repositories import outbox
from backend.services.events import DeliveryFailed, Subscriber
from tests.delivery.relaying import Inbox
from tests.steps import steps
from tests.waiting import wait_until

NOW = 10**12
LONGEST = tries_policy.LONGEST_WAIT
FEW, MANY = 200, 10_000
OWN_AGGREGATE = {"resource_id": "seq", "due_at": f"{NOW} + 1 + seq % 900000", "tries": "7"}  # each fails for itself
ONE_AGGREGATE = {"resource_id": "'one'", "due_at": f"CASE seq WHEN 1 THEN {NOW} + 1000 ELSE -1 END", "tries": "0"}
IN_PAIRS = {"resource_id": "seq / 2", "due_at": f"CASE seq % 2 WHEN 0 THEN {NOW} + 1000 ELSE -1 END", "tries": "0"}
DEAD_LETTERS = {"resource_id": "seq", "due_at": "NULL", "tries": "100"}
OTHERS = {"resource_id": "seq", "due_at": "0", "tries": "0", "subscriber": "'other'"}


@pytest.fixture
def waiting(database_path):
    """`waiting(count, kind)`: a transaction on a database in which that many deliveries wait."""
    made = []

    def make(count, kind):
        path = shutil.copy(database_path, database_path.with_name(f"{len(made)}.db"))
        connection = sqlite3.connect(path, isolation_level=None)
        made.append(connection)
        connection.execute("BEGIN")
        connection.execute(
            f"""INSERT INTO outbox
                WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {count})
                SELECT seq, seq, 'thing.done', 'thing', {kind["resource_id"]}, NULL, 'r', '{{}}', {NOW} FROM n"""
        )
        due_at, subscriber = kind["due_at"], kind.get("subscriber", "'inbox'")
        connection.execute(
            f"""INSERT INTO deliveries SELECT seq, {subscriber}, {kind["tries"]}, {due_at},
                CASE WHEN {due_at} IS NOT NULL THEN 'thing ' || resource_id END FROM outbox"""
        )
        return connection

    yield make
    for connection in made:
        connection.close()


def cost(connection, work):
    return steps(connection, lambda: work(Tx(connection, Timestamp(NOW))))


def an_event(resource_id):
    return Event(resource_id, "thing.done", "thing", resource_id, None, "request-1", {}, Timestamp(NOW))


def look(tx):
    assert outbox.due(tx, "inbox", LONGEST, 100) == []


def publish(tx):
    """Publish two more events, one of an aggregate of which some may wait; claim and deliver what is due of them."""
    for resource_id in ("one", "new"):
        event = an_event(resource_id)
        outbox.insert(tx, event, {"inbox": outbox.aggregate_of(event)})
    until = Timestamp(NOW + 1)
    claimed = outbox.claim(tx, "inbox", until, LONGEST, 100)
    assert claimed[-1].event.id == "new"
    outbox.set_delivered(tx, "inbox", [delivery.seq for delivery in claimed])
    for aggregate in outbox.end_claim(tx, "inbox", claimed, until):
        outbox.release(tx, "inbox", aggregate)


def deliver_first(tx):
    outbox.set_delivered(tx, "inbox", [1])
    outbox.release(tx, "inbox", "thing one")


def tidy(tx):
    assert outbox.others_owed(tx, ["inbox", "other"]) == []
    outbox.prune(tx, NOW, 0, 100)


def give_up(tx):
    outbox.give_up(tx, "inbox", 100)


@pytest.mark.parametrize("work", [look, publish, deliver_first, tidy, give_up], ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    "kind",
    [OWN_AGGREGATE, ONE_AGGREGATE, IN_PAIRS, DEAD_LETTERS, OTHERS],
    ids=["own", "one", "pairs", "dead", "others"],
)
def test_nothing_costs_what_waits(waiting, kind, work):
    """With fifty times as many waiting deliveries the same work costs the same."""
    few, many = (cost(waiting(count, kind), work) for count in (FEW, MANY))
    assert many <= 1.1 * few + 100


@pytest.mark.parametrize(
    "kind",
    [OWN_AGGREGATE | {"due_at": "seq % 2"}, ONE_AGGREGATE | {"due_at": "CASE seq WHEN 1 THEN 0 ELSE -1 END"}],
    ids=["own", "one"],
)
def test_a_claim_in_a_large_backlog_that_is_due_costs_a_batch(waiting, kind):
    def claim(tx):
        until = Timestamp(NOW + 1000)
        claimed = outbox.claim(tx, "inbox", until, LONGEST, 100)
        assert len(claimed) == 100
        for aggregate in outbox.end_claim(tx, "inbox", claimed, until):
            outbox.release(tx, "inbox", aggregate)

    few, many = (cost(waiting(count, kind), claim) for count in (FEW, MANY))
    assert many <= 1.1 * few


def test_a_backlog_of_one_aggregate_goes_out_in_order_once_its_head_does(process, clock, monkeypatch):
    """More than a batch.

    While the head fails, nothing else of the aggregate is tried, and other aggregates are not held up.
    """
    monkeypatch.setattr(relays, "BATCH", 10)
    monkeypatch.setattr(relays, "SHORT_PAUSE_SECONDS", 0)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.relay.start()
    one.publish(*["a"] * 35)
    one.publish("b")
    wait_until(lambda: ("b", 36) in inbox.got)
    assert set(inbox.numbers("a")) == {1}
    one.publish(*["a"] * 5)
    inbox.failing.clear()
    wait_until(lambda: clock.advance(10) or not one.owed())
    tries = inbox.numbers("a").count(1)
    assert inbox.numbers("a") == [1] * tries + [*range(2, 36), *range(37, 42)]


def test_a_backlog_fails_again_from_where_it_stands(process, clock, monkeypatch):
    """Its receiver is up for a moment and down again: each event is tried in its turn, and none is skipped."""
    monkeypatch.setattr(relays, "BATCH", 4)
    monkeypatch.setattr(relays, "SHORT_PAUSE_SECONDS", 0)
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0.01)
    tried = []

    def deliver(event):
        tried.append(event.payload["number"])
        if len(tried) // 5 % 2 == 0:
            raise DeliveryFailed("this moment")

    one = process(Subscriber("inbox", deliver))
    one.publish(*["a"] * 20)
    one.relay.start()
    wait_until(lambda: clock.advance(10) or not one.owed())
    assert tried == sorted(tried)
    assert list(dict.fromkeys(tried)) == list(range(1, 21))
    assert len(tried) > 30


def test_what_waits_behind_a_dead_letter_is_tried_in_its_turn(process, clock, monkeypatch):
    """More of one aggregate than a batch, and every event is given up."""
    monkeypatch.setattr(relays, "BATCH", 4)
    monkeypatch.setattr(relays, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(relays, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(tries_policy, "TRIES", 2)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish(*["a"] * 10)
    one.relay.start()
    wait_until(lambda: clock.advance(10) or not one.owed())
    assert inbox.numbers("a") == sorted([*range(1, 11)] * 2)


@pytest.fixture
def two_of_one(process):
    """Two events of one aggregate, owed to `x` and `y`: a process and the aggregate."""
    one = process(Inbox("x"), Inbox("y"))
    one.publish("a", "a")
    return one, "thing a"


def times(one):
    rows = one.rows("SELECT subscriber, seq, due_at FROM deliveries")
    return {(subscriber, seq): due_at for subscriber, seq, due_at in rows}


def test_a_release_concerns_one_subscriber(two_of_one):
    one, aggregate = two_of_one
    assert times(one) == {("x", 1): 0, ("x", 2): -1, ("y", 1): 0, ("y", 2): -1}
    with one.database.transaction() as tx:
        outbox.set_failed(tx, "y", 1, Timestamp(NOW))
        outbox.set_delivered(tx, "x", [1])
        assert outbox.release(tx, "x", aggregate)
        assert not outbox.release(tx, "y", aggregate)
    assert times(one) == {("x", 2): 0, ("y", 1): NOW, ("y", 2): -1}
    with one.database.transaction() as tx:
        outbox.set_failed(tx, "y", 1, None)
        assert outbox.release(tx, "y", aggregate)
    assert times(one) == {("x", 2): 0, ("y", 1): None, ("y", 2): 0}


def test_a_claim_that_is_ended_leaves_everything_as_it_was(two_of_one):
    """Also the time of a retry. Only for its own subscriber, and only if nothing has happened to the delivery since."""
    one, aggregate = two_of_one
    with one.database.transaction() as tx:
        outbox.set_failed(tx, "x", 1, Timestamp(NOW))
    before, until = times(one), Timestamp(one.database.now() + 1000)
    with one.database.transaction() as tx:
        claimed = outbox.claim(tx, "x", until, LONGEST, 100)
        assert [delivery.seq for delivery in claimed] == [1, 2]
        assert outbox.claim(tx, "x", until, LONGEST, 100) == []
    assert times(one) == before | {("x", 1): until}
    with one.database.transaction() as tx:
        assert outbox.end_claim(tx, "x", claimed, Timestamp(until - 1)) == set()
        assert outbox.end_claim(tx, "x", claimed, until) == {aggregate}
    assert times(one) == before


def test_what_is_behind_a_failed_event_is_no_lag(process, clock, monkeypatch):
    monkeypatch.setattr(relays, "next_try", lambda delivery, now: now + LONGEST)
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish("a")
    one.relay.start()
    wait_until(lambda: one.rows("SELECT tries FROM deliveries") == [(1,)])
    one.relay.stop()
    one.publish("a")
    clock.advance(61)
    one.relay.check_lag()
    one.publish("b")
    clock.advance(61)
    with pytest.raises(Unavailable):
        one.relay.check_lag()


def test_the_backlog_of_a_removed_subscriber_is_given_up_without_any_event(process, monkeypatch):
    """More than a batch, and no event makes the relay look."""
    monkeypatch.setattr(relays, "BATCH", 10)
    batches, give_up = [], outbox.give_up
    monkeypatch.setattr(outbox, "give_up", lambda tx, name, batch: batches.append(batch) or give_up(tx, name, batch))
    process(Inbox("gone"), Inbox("gone too"), Inbox("there")).publish(*["a"] * 35)
    inbox = Inbox("there")
    one = process(inbox)
    one.relay.start()
    wait_until(lambda: not one.owed())
    assert len(inbox.got) == 35
    gone = one.rows("SELECT subscriber, count(*) FROM deliveries WHERE due_at IS NULL GROUP BY 1")
    assert gone == [("gone", 35), ("gone too", 35)]
    assert set(batches) == {10}


def test_giving_up_goes_in_batches_that_leave_no_head_behind(process, clock):
    """The waiting deliveries are given up before those that they wait for, so a subscriber that comes back misses no
    release.
    """
    inbox = Inbox()
    inbox.failing.add("a")
    one = process(inbox)
    one.publish(*["a"] * 5)
    one.relay.start()
    wait_until(lambda: one.rows("SELECT count(*) FROM deliveries WHERE due_at = -1") == [(4,)])
    one.relay.stop()
    with one.database.transaction() as tx:
        outbox.give_up(tx, "inbox", 3)
    assert [seq for _, seq in one.owed()] == [1, 5]
    successor = Inbox()
    other = process(successor)
    other.relay.start()
    wait_until(lambda: clock.advance(1) or not other.owed())
    assert successor.got == [("a", 1), ("a", 5)]
