"""Events: written to the outbox in the transaction that they tell of, handed to subscribers after its commit."""

import logging
from collections.abc import Callable, Mapping

from backend.domain import Event
from backend.infrastructure.ids import new_id
from backend.infrastructure.logs import request_id
from backend.infrastructure.transaction import Transaction
from backend.repositories import outbox

Subscriber = Callable[[Event], None]

log = logging.getLogger(__name__)


class EventBus:
    """Thread-safe once every subscriber is in."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """From now on `subscriber` gets every event, after its commit; its errors are logged and harm nobody."""
        self._subscribers.append(subscriber)

    def publish(
        self, tx: Transaction, name: str, resource: tuple[str, str], user_id: str | None,
        payload: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        """Say in `tx` that `user_id` did what `name` says to the resource (type, id). `payload` holds no secrets."""
        event = Event(new_id(), name, *resource, user_id, request_id.get(), payload or {}, tx.now)
        outbox.insert(tx, event)
        tx.after_commit(lambda: self._deliver(event))

    def _deliver(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                log.exception("a subscriber failed on %s", event.name)
