"""The table `outbox`: events, written in the transaction that they tell of; and `deliveries`: to whom they are owed."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from backend.domain import Event, Timestamp
from backend.infrastructure.transaction import Transaction

COLUMNS = "id, name, resource_type, resource_id, user_id, request_id, payload, created_at"
OWED = "FROM deliveries JOIN outbox USING (seq) WHERE subscriber = :subscriber AND due_at IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that is owed to a subscriber. `due_since` is when it could have been delivered first."""

    seq: int
    tries: int
    due_since: Timestamp
    event: Event

    @property
    def aggregate(self) -> tuple[str, str]:
        return self.event.resource_type, self.event.resource_id


def insert(tx: Transaction, event: Event, subscribers: Iterable[str]) -> None:
    """Write the event, owed to the `subscribers` from now on."""
    (seq,) = tx.rows(
        f"""INSERT INTO outbox ({COLUMNS})
            VALUES (:id, :name, :type, :resource_id, :user_id, :request_id, :payload, :created_at) RETURNING seq""",
        id=event.id, name=event.name, type=event.resource_type, resource_id=event.resource_id, user_id=event.user_id,
        request_id=event.request_id, payload=json.dumps(event.payload), created_at=event.created_at,
    )[0]  # fmt: skip
    for subscriber in subscribers:
        tx.run("INSERT INTO deliveries VALUES (:seq, :subscriber, 0, 0)", seq=seq, subscriber=subscriber)


def due(tx: Transaction, subscriber: str, longest_wait: int, limit: int) -> Sequence[Delivery]:
    """What to deliver now, in order; nothing of an aggregate in which something waits for its next try.

    A time further off than the `longest_wait` was set before the clock stepped back, and is now.
    """
    rows = tx.rows(
        f"""SELECT seq, tries, due_at, {COLUMNS} {OWED} AND (resource_type, resource_id) NOT IN
            (SELECT resource_type, resource_id {OWED} AND due_at BETWEEN :now + 1 AND :now + :longest)
            ORDER BY seq LIMIT :limit""",
        subscriber=subscriber, now=tx.now, longest=longest_wait, limit=limit,
    )  # fmt: skip
    return [_delivery(*row) for row in rows]


def set_delivered(tx: Transaction, subscriber: str, seqs: Sequence[int]) -> None:
    tx.run_each(
        "DELETE FROM deliveries WHERE seq = :seq AND subscriber = :subscriber",
        ({"seq": seq, "subscriber": subscriber} for seq in seqs),
    )


def set_failed(tx: Transaction, subscriber: str, seq: int, due_at: int | None) -> None:
    """To be tried again at `due_at`; None: never."""
    tx.run(
        "UPDATE deliveries SET tries = tries + 1, due_at = :due_at WHERE seq = :seq AND subscriber = :subscriber",
        due_at=due_at, seq=seq, subscriber=subscriber,
    )  # fmt: skip


def give_up_but(tx: Transaction, subscribers: Collection[str]) -> None:
    """What is owed to anybody else becomes a dead letter: he is not there any more."""
    for (subscriber,) in tx.rows("SELECT DISTINCT subscriber FROM deliveries WHERE due_at IS NOT NULL"):
        if subscriber not in subscribers:
            tx.run("UPDATE deliveries SET due_at = NULL WHERE subscriber = :subscriber", subscriber=subscriber)


def prune(tx: Transaction, before: int, batch: int) -> None:
    """Forget events, dead letters too, that were made `before` and are owed to nobody, among the `batch` oldest."""
    tx.run(
        """DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY seq LIMIT :batch) AND created_at < :before
           AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = outbox.seq AND due_at IS NOT NULL)""",
        batch=batch, before=before,
    )  # fmt: skip


def _delivery(
    seq: int, tries: int, due_at: int, event_id: str, name: str, resource_type: str, resource_id: str,
    user_id: str | None, request_id: str, payload: str, created_at: Timestamp,
) -> Delivery:  # fmt: skip
    event = Event(
        event_id, name, resource_type, resource_id, user_id, request_id, json.loads(payload), created_at
    )  # fmt: skip
    return Delivery(seq, tries, Timestamp(max(due_at, created_at)), event)
