"""Events: written to the outbox in the transaction that they tell of, handed to others after its commit.

Listeners hear of an event in the process that committed it, at once, and not at all if that dies. Subscribers are owed
it: their deliveries are written in the same transaction, and the relay (`relay.py`) makes them, at least once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain import Event
from backend.infrastructure.ids import new_id
from backend.infrastructure.logs import request_id
from backend.infrastructure.transaction import Tx
from backend.repositories import outbox

INTERNAL = "internal"  # resource type of what this service has to do next, which is no news for others

Listener = Callable[[Event], None]
Recorder = Callable[[Tx, Sequence[Event]], None]

log = logging.getLogger(__name__)


class DeliveryFailed(Exception):
    """The event could not be delivered. The message goes to the log: no secrets."""


def is_public(event: Event) -> bool:
    return event.resource_type != INTERNAL


@dataclass(frozen=True)
class Subscriber:
    """A receiver: every event that it `wants`, by default all public ones, is owed to its `name`, which never changes.

    `deliver` takes it out of this service, outside any transaction; whatever it raises, it will be called again.
    `record` takes many down in this database, in the transaction that marks them delivered: so exactly once.
    """

    name: str
    deliver: Callable[[Event], None] | None = None
    record: Recorder | None = None
    wants: Callable[[Event], bool] = is_public

    def is_owed(self, event: Event) -> bool:
        """Whether it `wants` the event. If that raises, it is owed: better delivered in vain than lost."""
        try:
            return self.wants(event)
        except Exception:
            log.exception("%s cannot say whether it wants %s", self.name, event.name)
            return True


class EventBus:
    """Thread-safe once all listeners and subscribers are in."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._subscribers: list[Subscriber] = []

    def listen(self, listener: Listener) -> None:
        """From now on `listener` hears of every event, after its commit; its errors are logged and harm nobody."""
        self._listeners.append(listener)

    def subscribe(self, *subscribers: Subscriber) -> None:
        """From now on events are owed to the `subscribers`."""
        self._subscribers += subscribers

    def publish(
        self, tx: Tx, name: str, resource: tuple[str, str], user_id: str | None,
        payload: Mapping[str, object] | None = None, cause: Event | None = None,
    ) -> Event:  # fmt: skip
        """Say in `tx` that `user_id` did what `name` says to the resource (type, id). `payload` holds no secrets.

        With a `cause` it belongs to the request that caused that event.
        """
        request = cause.request_id if cause else request_id.get()
        event = Event(new_id(), name, *resource, user_id, request, payload or {}, tx.now)
        outbox.insert(tx, event, (subscriber.name for subscriber in self._subscribers if subscriber.is_owed(event)))
        tx.after_commit(lambda: self._tell(event))
        return event

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event.name)
