"""The table `outbox`: events, written in the transaction that they tell of."""

import json

from backend.domain import Event
from backend.infrastructure.transaction import Transaction


def insert(tx: Transaction, event: Event) -> None:
    tx.run(
        """INSERT INTO outbox (id, name, resource_type, resource_id, user_id, request_id, payload, created_at)
           VALUES (:id, :name, :type, :resource_id, :user_id, :request_id, :payload, :created_at)""",
        id=event.id, name=event.name, type=event.resource_type, resource_id=event.resource_id, user_id=event.user_id,
        request_id=event.request_id, payload=json.dumps(event.payload), created_at=event.created_at,
    )  # fmt: skip
