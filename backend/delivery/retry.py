"""One try to deliver an event, and the schedule of the next ones.

The pauses are 1 s, 2 s, 4 s … and at most 15 min. After a hundred tries, about a day, the event is given up.
"""

import logging

from backend.domain import Event, Timestamp
from backend.repositories.outbox import Delivery
from backend.services.events import DeliveryFailed, Subscriber

LONGEST_WAIT = 900_000  # milliseconds between two tries
TRIES = 100

log = logging.getLogger(__name__)


def attempt(subscriber: Subscriber, event: Event) -> str:
    """Deliver the event. Returns the problem, or "". Of other errors only the type: the text may hold a secret."""
    try:
        if subscriber.deliver is not None:
            subscriber.deliver(event)
    except DeliveryFailed as error:
        return str(error)
    except BaseException as error:  # also a library's SystemExit, which would end the thread
        return type(error).__name__
    return ""


def next_try(delivery: Delivery, now: Timestamp) -> Timestamp | None:
    """When to try again after one more failure; None after the last try."""
    if delivery.tries + 1 >= TRIES:
        return None
    return Timestamp(now + min(1000 << min(delivery.tries, 20), LONGEST_WAIT))


def log_failure(subscriber: Subscriber, delivery: Delivery, problem: str) -> None:
    event, tries = delivery.event, delivery.tries + 1
    level, outcome = (logging.ERROR, "given up") if tries >= TRIES else (logging.WARNING, "to be tried again")
    log.log(level, "%s %s for %s: %s; try %d, %s", event.name, event.id, subscriber.name, problem, tries, outcome)
