"""Helpers of the relay's tests: subscribers that record events, and processes as a relay sees them."""

import os
import threading
from collections import defaultdict

from backend.delivery.relay import Relay
from backend.infrastructure.database import Database
from backend.services.events import DeliveryFailed, EventBus, Subscriber


class Inbox:
    """A subscriber that keeps what it gets, and fails or hangs when a test wants it to."""

    def __init__(self, name="inbox", **more):
        self.called = False
        self.got = []  # (resource id, number) in the order of arrival
        self.failing = set()  # resource ids
        self.open = threading.Event()
        self.open.set()
        self.subscriber = Subscriber(name, self.deliver, **more)

    def deliver(self, event):
        self.called = True
        if not self.open.wait(60):
            raise TimeoutError
        self.got.append((event.resource_id, event.payload["number"]))
        if event.resource_id in self.failing:
            raise DeliveryFailed("because the test says so")

    def numbers(self, resource_id):
        return [number for resource, number in self.got if resource == resource_id]


class Journal:
    """A file to which subscribers in several real processes append what they get: one short write for each event."""

    def __init__(self, path):
        self._path = path
        path.touch()

    def deliver(self, event):
        line = f"{event.resource_id} {event.id} {event.payload['number']}\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def all(self):
        whole, _, _ = self._path.read_text().rpartition("\n")  # without a line that is being written
        return [line.split() for line in whole.splitlines()]

    def numbers(self, resource_id):
        return [int(number) for resource, _, number in self.all() if resource == resource_id]

    def first_arrivals(self):
        """The ids of the events of each resource, in the order of their first arrival."""
        found = defaultdict(dict)
        for resource_id, event_id, _ in self.all():
            found[resource_id][event_id] = None
        return {resource_id: list(ids) for resource_id, ids in found.items()}


class Process:
    """What one process has: a database, a bus and a relay. `wakes`: the relay is woken by the process's own commits."""

    def __init__(self, path, clock, *inboxes, wakes=True, monotonic=None, busy_timeout=30.0):
        self.database = Database(path, busy_timeout, clock)
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
