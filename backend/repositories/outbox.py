"""The table `outbox`: events, written in the transaction that they tell of; and `deliveries`: to whom they are owed.

`due_at` of a delivery is 0 if it is due since it was written, the time of the next try if it has failed, BEHIND if it
waits for an earlier one of its aggregate, NULL if it was given up. `aggregate` is set on what has failed or waits.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from backend.domain import Event, Timestamp
from backend.infrastructure.transaction import Tx

COLUMNS = "id, name, resource_type, resource_id, user_id, request_id, payload, created_at"
BEHIND = -1
END_OF_TIME = 2**63 - 1
AGGREGATE = "resource_type || ' ' || resource_id"
IS_BEHIND = f"""EXISTS (SELECT 1 FROM deliveries AS earlier WHERE earlier.subscriber = :subscriber
                        AND earlier.aggregate = {AGGREGATE} AND earlier.seq < outbox.seq)"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that is owed to a subscriber. `due_since` is when it could have been delivered first.

    `is_behind`: an earlier event of the same aggregate has failed and must be delivered first.
    """

    seq: int
    tries: int
    due_since: Timestamp
    is_behind: bool
    event: Event

    @property
    def aggregate(self) -> str:
        return f"{self.event.resource_type} {self.event.resource_id}"


def insert(tx: Tx, event: Event, subscribers: Iterable[str]) -> None:
    """Write the event, owed to the `subscribers` from now on."""
    (seq,) = tx.rows(
        f"""INSERT INTO outbox ({COLUMNS})
            VALUES (:id, :name, :type, :resource_id, :user_id, :request_id, :payload, :created_at) RETURNING seq""",
        id=event.id, name=event.name, type=event.resource_type, resource_id=event.resource_id, user_id=event.user_id,
        request_id=event.request_id, payload=json.dumps(event.payload), created_at=event.created_at,
    )[0]  # fmt: skip
    for subscriber in subscribers:
        tx.run(
            "INSERT INTO deliveries (seq, subscriber, tries, due_at) VALUES (:seq, :subscriber, 0, 0)",
            seq=seq, subscriber=subscriber,
        )  # fmt: skip


def due(tx: Tx, subscriber: str, longest_wait: int, limit: int) -> Sequence[Delivery]:
    """`limit` of what is due: new events in the order of commits, then retries in the order of their times.

    The cost does not depend on how many others wait. If nothing is due, a time further off than the `longest_wait` is:
    it was set before the clock stepped back.
    """
    now = _due_between(tx, subscriber, 0, tx.now, limit)
    return now or _due_between(tx, subscriber, tx.now + longest_wait + 1, END_OF_TIME, limit)


def set_delivered(tx: Tx, subscriber: str, seqs: Iterable[int]) -> None:
    tx.run_each(
        "DELETE FROM deliveries WHERE seq = :seq AND subscriber = :subscriber",
        ({"seq": seq, "subscriber": subscriber} for seq in seqs),
    )


def set_failed(tx: Tx, subscriber: str, delivery: Delivery, due_at: int | None) -> None:
    """To be tried again at `due_at`; None: never."""
    tx.run(
        """UPDATE deliveries SET tries = tries + 1, due_at = :due_at, aggregate = :aggregate
           WHERE seq = :seq AND subscriber = :subscriber""",
        due_at=due_at, aggregate=None if due_at is None else delivery.aggregate, seq=delivery.seq,
        subscriber=subscriber,
    )  # fmt: skip


def set_behind(tx: Tx, subscriber: str, seqs: Iterable[int]) -> None:
    """These wait, if an earlier event of their aggregate still does: it may have been delivered meanwhile."""
    tx.run_each(
        f"""UPDATE deliveries SET due_at = {BEHIND}, aggregate = {AGGREGATE} FROM outbox
            WHERE outbox.seq = deliveries.seq AND deliveries.seq = :seq AND subscriber = :subscriber AND due_at = 0
            AND {IS_BEHIND}""",
        ({"seq": seq, "subscriber": subscriber} for seq in seqs),
    )  # fmt: skip


def release(tx: Tx, subscriber: str, aggregate: str, limit: int) -> None:
    """The next that wait in this aggregate are due: what they waited for has been delivered, or given up.

    `+due_at` keeps SQLite from the index on times, in which those that wait in other aggregates are as well.
    """
    tx.run(
        f"""UPDATE deliveries SET due_at = 0, aggregate = NULL WHERE subscriber = :subscriber AND seq IN
            (SELECT seq FROM deliveries WHERE subscriber = :subscriber AND aggregate = :aggregate
             AND +due_at = {BEHIND} ORDER BY seq LIMIT :limit)""",
        subscriber=subscriber, aggregate=aggregate, limit=limit,
    )  # fmt: skip


def others_owed(tx: Tx, subscribers: Collection[str]) -> Sequence[str]:
    """To whom something is owed, beside the `subscribers`. Costs a look for each name, not for each delivery."""
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


def give_up(tx: Tx, subscriber: str, batch: int) -> None:
    """So many of the deliveries that are owed become dead letters; those that wait for others first."""
    tx.run(
        """UPDATE deliveries SET due_at = NULL, aggregate = NULL WHERE subscriber = :subscriber AND seq IN
           (SELECT seq FROM deliveries WHERE subscriber = :subscriber AND due_at IS NOT NULL
            ORDER BY due_at, seq LIMIT :batch)""",
        subscriber=subscriber, batch=batch,
    )  # fmt: skip


def prune(tx: Tx, before: int, after: int, batch: int) -> int:
    """Forget events, dead letters too, that were made `before` and are owed to no subscriber.

    Looks at the `batch` events that follow number `after`. Returns the number to go on after: 0 is the beginning.
    """
    events = tx.rows(
        "SELECT seq, created_at FROM outbox WHERE seq > :after ORDER BY seq LIMIT :batch", after=after, batch=batch
    )
    old = [seq for seq, created_at in events if created_at < before]
    tx.run_each(
        """DELETE FROM outbox WHERE seq = :seq
           AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = outbox.seq AND due_at IS NOT NULL)""",
        ({"seq": seq} for seq in old),
    )
    return old[-1] if old else 0


def _due_between(tx: Tx, subscriber: str, first: int, last: int, limit: int) -> Sequence[Delivery]:
    rows = tx.rows(
        f"""SELECT seq, tries, due_at, {IS_BEHIND}, {COLUMNS} FROM deliveries CROSS JOIN outbox USING (seq)
            WHERE subscriber = :subscriber AND due_at BETWEEN :first AND :last ORDER BY due_at, seq LIMIT :limit""",
        subscriber=subscriber, first=first, last=last, limit=limit,
    )  # fmt: skip
    return [_delivery(*row) for row in rows]


def _delivery(
    seq: int, tries: int, due_at: int, is_behind: int, event_id: str, name: str, resource_type: str, resource_id: str,
    user_id: str | None, request_id: str, payload: str, created_at: Timestamp,
) -> Delivery:  # fmt: skip
    event = Event(
        event_id, name, resource_type, resource_id, user_id, request_id, json.loads(payload), created_at
    )  # fmt: skip
    return Delivery(seq, tries, Timestamp(max(due_at, created_at)), bool(is_behind), event)
