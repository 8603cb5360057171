"""One try to deliver an event: what came of it, and when the next one is.

The first again after 1 s, then 2 s, 4 s … 15 min apart; after a hundred, about a day, an event is given up.
"""

import logging

from backend.domain import Event
from backend.repositories.outbox import Delivery
from backend.services.events import DeliveryFailed, Subscriber

LONGEST_WAIT = 900_000  # milliseconds between two tries
TRIES = 100

log = logging.getLogger(__name__)


def attempt(subscriber: Subscriber, event: Event) -> str:
    """What kept `subscriber` from taking the event; nothing if he has it. No foreign text: it might hold a secret."""
    try:
        if subscriber.deliver is not None:
            subscriber.deliver(event)
    except DeliveryFailed as error:
        return str(error)
    except BaseException as error:  # a library's SystemExit too, which would end the thread
        return type(error).__name__
    return ""


def next_try(delivery: Delivery, now: int) -> int | None:
    """None: it was the last one."""
    if delivery.tries + 1 >= TRIES:
        return None
    return now + min(1000 << min(delivery.tries, 20), LONGEST_WAIT)


def log_failure(subscriber: Subscriber, delivery: Delivery, problem: str) -> None:
    event, tries = delivery.event, delivery.tries + 1
    level, outcome = (logging.ERROR, "given up") if tries >= TRIES else (logging.WARNING, "to be tried again")
    log.log(level, "%s %s for %s: %s; try %d, %s", event.name, event.id, subscriber.name, problem, tries, outcome)
