"""The tables `outbox` (events, written in the transaction that they describe) and `deliveries` (what is still owed).

A delivery is one event for one subscriber. The row is deleted once the event has been delivered. Its `due_at` says when
a process may claim it:

    0           at once
    a time      from then on: the next try after a failure, or the end of a claim
    WAITING     not yet: an older event of its aggregate comes first
    NULL        never: the event was given up, and the row is a dead letter

`aggregate` (resource type and id) is set where order matters. Only the oldest delivery of an aggregate has a time; all
later ones are WAITING. So a process that claims the oldest has the aggregate to itself, and a query for what is due
never reads what waits. For this, functions that change deliveries rely on SQLite's write lock, and on PostgreSQL on
`tx.lock`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain import Event, Timestamp
from backend.infrastructure.database import Tx

COLUMNS = "id, name, resource_type, resource_id, user_id, request_id, payload, created_at"
WAITING = -1
END_OF_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that is owed to a subscriber. `due_at` has the value from before the claim."""

    seq: int
    tries: int
    due_at: int
    event: Event

    @property
    def aggregate(self) -> str:
        return aggregate_of(self.event)

    @property
    def due_since(self) -> Timestamp:
        """The earliest time at which the event could have been delivered."""
        return Timestamp(max(self.due_at, self.event.created_at))


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many deliveries are due, wait (for an older event, a claim's end, a retry), and are dead letters."""

    due: int
    waiting: int
    dead: int
    oldest: Timestamp | None  # since when the oldest of those that are due could have been delivered


def aggregate_of(event: Event) -> str:
    return f"{event.resource_type} {event.resource_id}"


def insert(tx: Tx, event: Event, owed: Mapping[str, str | None]) -> None:
    """Write the event, and owe it to each subscriber, after all older events of the aggregate that `owed` gives it.

    None: order does not matter. The numbers of an aggregate's events rise in the order of commits.
    """
    for subscriber, aggregate in owed.items():
        if aggregate:
            tx.lock(f"{subscriber} {aggregate}")  # before the event gets its number
    tx.write(
        f"""INSERT INTO outbox ({COLUMNS})
            VALUES (:id, :name, :type, :resource_id, :user_id, :request_id, :payload, :created_at)""",
        id=event.id, name=event.name, type=event.resource_type, resource_id=event.resource_id, user_id=event.user_id,
        request_id=event.request_id, payload=json.dumps(event.payload), created_at=event.created_at,
    )  # fmt: skip
    for subscriber, aggregate in owed.items():
        tx.write(
            f"""INSERT INTO deliveries (seq, subscriber, tries, aggregate, due_at)
                SELECT seq, :subscriber, 0, :aggregate,
                CASE WHEN EXISTS (SELECT 1 FROM deliveries WHERE subscriber = :subscriber AND aggregate = :aggregate)
                THEN {WAITING} ELSE 0 END FROM outbox WHERE id = :id""",
            id=event.id, subscriber=subscriber, aggregate=aggregate,
        )  # fmt: skip


def due(tx: Tx, subscriber: str, longest_wait: int, limit: int) -> Sequence[Delivery]:
    """At most `limit` deliveries that are due: new events in the order of commits, then the others by time.

    If there are none, those that are due in more than `longest_wait` milliseconds: the clock was set back after their
    time was written. The cost does not depend on how many deliveries wait.
    """
    between = "due_at BETWEEN :first AND :last ORDER BY due_at, owed.seq"
    now = _deliveries(tx, subscriber, between, limit, first=0, last=tx.now)
    return now or _deliveries(tx, subscriber, between, limit, first=tx.now + longest_wait + 1, last=END_OF_TIME)


def claim(tx: Tx, subscriber: str, until: Timestamp, longest_wait: int, limit: int) -> Sequence[Delivery]:
    """Claim what is due and the events that wait behind it: at most `limit`, in the order of commits.

    No other process finds an event of these aggregates due before `until`. A claim that is not ended lapses then.
    """
    tx.lock(subscriber)
    heads = due(tx, subscriber, longest_wait, limit)
    tx.run_each(
        "UPDATE deliveries SET due_at = :until WHERE seq = :seq AND subscriber = :subscriber",
        ({"until": until, "seq": head.seq, "subscriber": subscriber} for head in heads),
    )
    behind, share = "aggregate = :aggregate AND owed.seq > :seq ORDER BY owed.seq", limit // max(1, len(heads))
    waiting = [
        delivery
        for head in heads
        for delivery in _deliveries(tx, subscriber, behind, share - 1, aggregate=head.aggregate, seq=head.seq)
    ]
    return sorted([*heads, *waiting], key=lambda delivery: delivery.seq)


def end_claim(tx: Tx, subscriber: str, claimed: Iterable[Delivery], until: Timestamp) -> set[str]:
    """End the claim. Returns its aggregates, except those that another process has claimed since."""
    held = set()
    for aggregate in sorted({delivery.aggregate for delivery in claimed}):
        tx.lock(f"{subscriber} {aggregate}")
    for delivery in claimed:
        if delivery.due_at != WAITING and tx.run(
            "UPDATE deliveries SET due_at = :due_at WHERE seq = :seq AND subscriber = :subscriber AND due_at = :until",
            due_at=delivery.due_at, seq=delivery.seq, subscriber=subscriber, until=until,
        ):  # fmt: skip
            held.add(delivery.aggregate)
    return held


def set_delivered(tx: Tx, subscriber: str, seqs: Iterable[int]) -> None:
    tx.run_each(
        "DELETE FROM deliveries WHERE seq = :seq AND subscriber = :subscriber",
        ({"seq": seq, "subscriber": subscriber} for seq in seqs),
    )


def set_failed(tx: Tx, subscriber: str, seq: int, due_at: Timestamp | None) -> None:
    """Count a failure; try again at `due_at`. None: make it a dead letter, for which later events do not wait."""
    tx.write(
        """UPDATE deliveries SET tries = tries + 1, due_at = :due_at,
           aggregate = CASE WHEN :due_at IS NOT NULL THEN aggregate END
           WHERE seq = :seq AND subscriber = :subscriber""",
        due_at=due_at, seq=seq, subscriber=subscriber,
    )  # fmt: skip


def release(tx: Tx, subscriber: str, aggregate: str) -> bool:
    """Make the oldest event of the aggregate due if it waits. Returns whether it did."""
    return bool(
        tx.run(
            f"""UPDATE deliveries SET due_at = 0 WHERE subscriber = :subscriber AND due_at = {WAITING} AND seq =
                (SELECT min(seq) FROM deliveries WHERE subscriber = :subscriber AND aggregate = :aggregate)""",
            subscriber=subscriber,
            aggregate=aggregate,
        )
    )


def others_owed(tx: Tx, subscribers: Collection[str]) -> Sequence[str]:
    """The other subscribers to which something is owed. Costs one probe for each name, not for each delivery."""
    names = tx.rows(
        """WITH RECURSIVE owed (name) AS (
               SELECT (SELECT subscriber FROM deliveries WHERE due_at IS NOT NULL ORDER BY subscriber LIMIT 1)
               UNION ALL
               SELECT (SELECT subscriber FROM deliveries WHERE due_at IS NOT NULL AND subscriber > name
                       ORDER BY subscriber LIMIT 1)
               FROM owed WHERE name IS NOT NULL)
           SELECT name FROM owed WHERE name IS NOT NULL"""
    )
    return [name for (name,) in names if name not in subscribers]


def backlog(tx: Tx, most: int) -> Backlog:
    """What is owed to all subscribers. Counts stop at `most`: of dead letters in all, of others for each subscriber."""
    names = others_owed(tx, ())
    due = [_count(tx, name, "due_at BETWEEN 0 AND :now", most) for name in names]
    later = [_count(tx, name, "due_at < 0", most) + _count(tx, name, "due_at > :now", most) for name in names]
    dead = "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE due_at IS NULL LIMIT :most) AS letters"
    heads = [since for name in names for first in (0, 1) for since in _due_since(tx, name, first)]
    return Backlog(sum(due), sum(later), tx.rows(dead, most=most)[0][0], min(heads, default=None))


def give_up(tx: Tx, subscriber: str, batch: int) -> None:
    """Turn at most `batch` deliveries into dead letters, the waiting ones before those that they wait for."""
    tx.write(
        """UPDATE deliveries SET due_at = NULL, aggregate = NULL WHERE subscriber = :subscriber AND seq IN
           (SELECT seq FROM deliveries WHERE subscriber = :subscriber AND due_at IS NOT NULL
            ORDER BY due_at, seq LIMIT :batch)""",
        subscriber=subscriber,
        batch=batch,
    )


def prune(tx: Tx, until: int, after: int, batch: int) -> tuple[int, int]:
    """Delete events that were created at or before `until` and are owed to no subscriber, with their dead letters.

    Looks at the `batch` events that follow number `after`. Returns how many it deleted and the number to continue
    after: 0, the beginning, if none of them was old.
    """
    events = tx.rows(
        "SELECT seq, created_at FROM outbox WHERE seq > :after ORDER BY seq LIMIT :batch", after=after, batch=batch
    )
    old = [seq for seq, created_at in events if created_at <= until]
    deleted = tx.run_each(
        """DELETE FROM outbox WHERE seq = :seq
           AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = outbox.seq AND due_at IS NOT NULL)""",
        ({"seq": seq} for seq in old),
    )
    return deleted, old[-1] if old else 0


def _count(tx: Tx, subscriber: str, which: str, most: int) -> int:
    rows = tx.rows(
        f"""SELECT count(*) FROM
            (SELECT 1 FROM deliveries WHERE subscriber = :subscriber AND {which} LIMIT :most) AS owed""",
        subscriber=subscriber, now=tx.now, most=most,
    )  # fmt: skip
    return int(rows[0][0])


def _due_since(tx: Tx, subscriber: str, first: int) -> Sequence[Timestamp]:
    """Since when the oldest of the due deliveries with `due_at` >= `first` could have been delivered; empty if none."""
    rows = tx.rows(
        """SELECT CASE WHEN due_at > created_at THEN due_at ELSE created_at END
           FROM deliveries AS owed CROSS JOIN outbox WHERE outbox.seq = owed.seq
           AND subscriber = :subscriber AND due_at BETWEEN :first AND :now ORDER BY due_at, owed.seq LIMIT 1""",
        subscriber=subscriber, first=first, now=tx.now,
    )  # fmt: skip
    return [Timestamp(since) for (since,) in rows]


def _deliveries(tx: Tx, subscriber: str, which: str, limit: int, **parameters: object) -> Sequence[Delivery]:
    rows = tx.rows(
        f"""SELECT owed.seq, tries, due_at, {COLUMNS} FROM deliveries AS owed CROSS JOIN outbox
            WHERE outbox.seq = owed.seq AND subscriber = :subscriber AND {which} LIMIT :limit""",
        subscriber=subscriber, limit=limit, **parameters,
    )  # fmt: skip
    return [
        Delivery(seq, tries, due_at, Event(id_, name, kind, resource_id, user_id, request_id, json.loads(payload), at))
        for seq, tries, due_at, id_, name, kind, resource_id, user_id, request_id, payload, at in rows
    ]
