"""The relay: delivers what the outbox owes, after the commit, at least once, whoever dies meanwhile.

An event and a row for each of its subscribers are written in the transaction that the event tells of. In each process
one thread a subscriber looks for such rows, at once when the process itself has committed and else once a second, and

  delivers  a batch, in the order of commits. Only the holder of the machine's one lease (`lease.py`) may, and nothing
            else does so at the same time. A subscriber that only `record`s needs no lease: the batch, its effect and
            the mark "delivered" are one transaction, in whichever process.
  marks     in a short transaction afterwards. Who is killed between the two delivers again: so at least once.
  retries   what failed, further and further apart (`tries.py`). Meanwhile later events of the same aggregate (resource
            type and id) wait, others do not. After the last try it is a dead letter: a row that waits for nothing.

Each subscriber has a thread and rows of his own, so one that fails or hangs holds up nobody else; one more renews the
lease while somebody delivers. A subscriber that is gone from the settings is owed nothing more. After KEPT, events
that are owed to nobody are forgotten, in small batches, and dead letters with them.

Not promised: order between aggregates, or beyond a dead letter; that a subscriber sees an event only once.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from weakref import WeakMethod

from backend.domain import Event
from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.infrastructure.lease import RENEW_SECONDS, Lease
from backend.infrastructure.transaction import Transaction
from backend.repositories import outbox
from backend.repositories.outbox import Delivery
from backend.services.events import Recorder, Subscriber
from backend.services.tries import LONGEST_WAIT, attempt, log_failure, next_try

POLL_SECONDS = 1.0  # between two looks for what other processes have committed, and for retries
PAUSE_SECONDS = 0.2  # between two batches: under load many events share a transaction
BATCH = 100
RECORDED = 600  # at once, where a process can do five times as many in a second
BATCH_SECONDS = 1.0  # of deliveries that may have to be made again
KEPT = 7 * 86_400_000  # milliseconds
LAG = 60_000  # milliseconds that something may be due without alarm
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)

Outcome = tuple[Delivery, str]  # and what was the problem; "" if it was delivered


class Relay:
    """Thread-safe. Its threads run from `start()` to `stop()`, in no forked child unless that starts its own."""

    def __init__(
        self, database: Database, subscribers: Sequence[Subscriber], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._subscribers = subscribers
        self._clock = clock
        self._stopping = threading.Event()
        self._begin()
        begin = WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (again := begin()) and again())

    def _begin(self) -> None:
        """Nothing runs: true at the start, and after a fork, where the threads are the parent's."""
        if self._stopping.is_set():
            return
        self.started = False
        self._start = threading.Lock()
        self._stopping = threading.Event()
        self._bells = {subscriber.name: threading.Event() for subscriber in self._subscribers}
        self._threads: list[threading.Thread] = []
        self._delivering: set[str] = set()
        self._lease = Lease(self._database, "relay", self._clock)
        self._tidied = False

    def start(self) -> None:
        """Begin to deliver; again is nothing."""
        with self._start:
            if not self.started:
                self._threads = [threading.Thread(target=self._keep_lease, daemon=True)]
                self._threads += (
                    threading.Thread(target=self._serve, args=[s], daemon=True) for s in self._subscribers
                )
                for thread in self._threads:
                    thread.start()
                self.started = True

    def wake(self, event: Event) -> None:
        """There is something new, for those who want it: each bell that rings costs a look into the outbox."""
        for subscriber in self._subscribers:
            if subscriber.wants(event):
                self._bells[subscriber.name].set()

    def stop(self) -> None:
        """Begin nothing more. If what runs ends within STOP_SECONDS, another process may go on at once."""
        self._stopping.set()
        for bell in self._bells.values():
            bell.set()
        end = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._lease.release()

    def check_lag(self) -> None:
        """Raises Unavailable if something has been due for LAG. What failed and waits for its next try is not due.

        A clock that jumps makes everything late, until the relay comes to it: so look again before saying so.
        """
        for _ in range(20):
            first = [delivery for subscriber in self._subscribers for delivery in self._due(subscriber, 1)]
            if all(self._database.now() - delivery.due_since <= LAG for delivery in first):
                return
            time.sleep(POLL_SECONDS / 10)
        raise Unavailable(f"Events have been due for more than {LAG // 1000} s.")

    def _serve(self, subscriber: Subscriber) -> None:
        """A thread's life."""
        bell = self._bells[subscriber.name]
        while not self._stopping.is_set():
            if self._deliver_batch(subscriber):
                self._stopping.wait(PAUSE_SECONDS)
            else:
                bell.wait(POLL_SECONDS)
                bell.clear()
        self._database.close()

    def _deliver_batch(self, subscriber: Subscriber) -> bool:
        """False if nothing was to be done, or not by us, or not now."""
        try:
            if self._due(subscriber, 1) and self._may_deliver(subscriber):
                if subscriber.record:
                    return self._record(subscriber, subscriber.record)
                self._delivering.add(subscriber.name)
                outcomes = self._outcomes(subscriber, self._due(subscriber, BATCH))  # again: now it is ours alone
                self._mark(subscriber, outcomes)
                return bool(outcomes)
        except Unavailable:
            pass  # the database has said why
        except Exception:
            log.exception("unforeseen error")
        finally:
            self._delivering.discard(subscriber.name)
        return False

    def _record(self, subscriber: Subscriber, record: Recorder) -> bool:
        with self._database.transaction() as tx:  # whatever others have recorded meanwhile is not due any more
            due = outbox.due(tx, subscriber.name, LONGEST_WAIT, RECORDED)
            record(tx, [delivery.event for delivery in due])
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery in due])
            self._tidy(tx)
        return bool(due)

    def _due(self, subscriber: Subscriber, limit: int) -> Sequence[Delivery]:
        with self._database.snapshot() as tx:
            return outbox.due(tx, subscriber.name, LONGEST_WAIT, limit)

    def _may_deliver(self, subscriber: Subscriber) -> bool:
        return not self._stopping.is_set() and (subscriber.deliver is None or self._lease.hold())

    def _outcomes(self, subscriber: Subscriber, due: Sequence[Delivery]) -> list[Outcome]:
        """Deliver, as long as we may; what came of it."""
        outcomes: list[Outcome] = []
        failed: set[tuple[str, str]] = set()  # aggregates: what comes after must wait
        end = self._clock() + BATCH_SECONDS
        for delivery in due:
            if delivery.aggregate in failed:
                continue
            if self._clock() > end or not self._may_deliver(subscriber):
                break
            problem = attempt(subscriber, delivery.event)
            outcomes.append((delivery, problem))
            if problem:
                failed.add(delivery.aggregate)
        return outcomes

    def _keep_lease(self) -> None:
        """While a delivery takes long, the lease must not lapse."""
        while not self._stopping.wait(RENEW_SECONDS):
            if self._delivering:
                self._lease.hold()

    def _mark(self, subscriber: Subscriber, outcomes: Sequence[Outcome]) -> None:
        with self._database.transaction() as tx:
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery, problem in outcomes if not problem])
            for delivery, problem in outcomes:
                if problem:
                    outbox.set_failed(tx, subscriber.name, delivery.seq, next_try(delivery, tx.now))
            self._tidy(tx)
        for delivery, problem in outcomes:
            if problem:
                log_failure(subscriber, delivery, problem)

    def _tidy(self, tx: Transaction) -> None:
        outbox.prune(tx, tx.now - KEPT, RECORDED)
        if not self._tidied:
            outbox.give_up_but(tx, self._bells)
            self._tidied = True
