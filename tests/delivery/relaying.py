"""What tests of the relay are made of: a subscriber that keeps what it gets, and processes as a relay sees them."""

import threading

from backend.delivery.relay import Relay
from backend.infrastructure.database import Database
from backend.services.events import DeliveryFailed, EventBus, Subscriber


class Inbox:
    """A subscriber that keeps what it gets, and fails or hangs when a test says so."""

    def __init__(self, name="inbox", **more):
        self.got = []  # (resource id, number) in the order of arrival
        self.failing = set()  # resource ids
        self.begun = threading.Event()  # a delivery has
        self.open = threading.Event()
        self.open.set()
        self.subscriber = Subscriber(name, self.deliver, **more)

    def deliver(self, event):
        self.begun.set()
        if not self.open.wait(30):
            raise TimeoutError
        self.got.append((event.resource_id, event.payload["number"]))
        if event.resource_id in self.failing:
            raise DeliveryFailed("because the test says so")

    def numbers(self, resource_id):
        return [number for resource, number in self.got if resource == resource_id]


class Process:
    """What one process has: a database, a bus and a relay. `wakes`: the relay hears of the process's own commits."""

    def __init__(self, path, clock, *inboxes, wakes=True, monotonic=None, busy_timeout=2.0):
        self.database = Database(path, busy_timeout, clock, patient=16)
        self.events = EventBus()
        subscribers = [getattr(inbox, "subscriber", inbox) for inbox in inboxes]
        self.events.subscribe(*subscribers)
        self.relay = Relay(self.database, subscribers, *([monotonic] if monotonic else []))
        if wakes:
            self.events.listen(self.relay.wake)
        self.number = 0

    def publish(self, *resource_ids):
        with self.database.transaction() as tx:
            for resource_id in resource_ids:
                self.number += 1
                self.events.publish(tx, "thing.done", ("thing", resource_id), None, {"number": self.number})

    def rows(self, sql):
        with self.database.snapshot() as tx:
            return tx.rows(sql)

    def owed(self):
        return self.rows("SELECT subscriber, seq FROM deliveries WHERE due_at IS NOT NULL ORDER BY seq")
