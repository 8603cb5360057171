"""Events: written to the outbox in the transaction that they describe, passed on after its commit.

A listener is called once, right after the commit and in the same process; if the process is killed first, it is not
called. A subscriber is owed the event: its delivery is written in the same transaction, and the relay makes it later,
at least once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.domain import Event
from backend.infrastructure.database import Tx
from backend.infrastructure.ids import new_id
from backend.infrastructure.logs import request_id
from backend.repositories import outbox

INTERNAL = "internal"  # the resource type of tasks of this service, which are not for other subscribers
DELIVERY_SECONDS = 15.0  # for one call of `deliver`; after that another process may deliver the event as well

Listener = Callable[[Event], None]
Recorder = Callable[[Tx, Sequence[Event]], None]

log = logging.getLogger(__name__)


class DeliveryFailed(Exception):
    """The event could not be delivered. The message is logged: no secrets."""


def is_public(event: Event) -> bool:
    return event.resource_type != INTERNAL


@dataclass(frozen=True)
class Subscriber:
    """A receiver of every event that it `wants`: by default, all public ones.

    `name` identifies it in the database and must never change. Exactly one of these two is set:

    `deliver` takes an event out of this service, outside any transaction and within DELIVERY_SECONDS. It is called at
    least once for each event, and again later if it raises. Events of one resource arrive in the order of commits;
    for different resources, several processes may call it at the same time.

    `record` writes many events to this database, in the transaction that deletes their deliveries: each exactly once,
    in any order.
    """

    name: str
    deliver: Callable[[Event], None] | None = None
    record: Recorder | None = None
    wants: Callable[[Event], bool] = is_public

    def is_owed(self, event: Event) -> bool:
        """Whether it `wants` the event. If that raises, yes: a needless delivery is better than a lost one."""
        try:
            return self.wants(event)
        except Exception:
            log.exception("%s cannot say whether it wants %s", self.name, event.name)
            return True


class EventBus:
    """Thread-safe once all listeners and subscribers have been added."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._subscribers: list[Subscriber] = []

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every later event, after its commit. Its errors are logged and never raised."""
        self._listeners.append(listener)

    def subscribe(self, *subscribers: Subscriber) -> None:
        """Owe every later event to the `subscribers`."""
        self._subscribers += subscribers

    def publish(
        self, tx: Tx, name: str, resource: tuple[str, str], user_id: str | None,
        payload: Mapping[str, object] | None = None, cause: Event | None = None,
    ) -> Event:  # fmt: skip
        """Write an event in `tx`: the user `user_id` did `name` to the resource (type, id). No secrets in `payload`.

        The request id is that of `cause`, if given, else of the current request.
        """
        request = cause.request_id if cause else request_id.get()
        event = Event(new_id(), name, *resource, user_id, request, payload or {}, tx.now)
        aggregate = outbox.aggregate_of(event)
        owed = {each.name: aggregate if each.deliver else None for each in self._subscribers if each.is_owed(event)}
        outbox.insert(tx, event, owed)
        tx.after_commit(lambda: self._call_listeners(event))
        return event

    def _call_listeners(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", event.name)
