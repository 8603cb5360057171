"""The relay: delivers what the outbox owes, after the commit, at least once, whichever process dies meanwhile.

An event and a row for each of its subscribers are written in the transaction that the event tells of. In each process
one thread a subscriber looks for rows that are due, at once when the process itself has committed and else once a
second, and

  delivers  a batch, in the order of commits. Only the holder of the machine's one lease (`lease.py`) may, and nothing
            else does so at the same time. A subscriber that only `record`s needs no lease: the batch, its effect and
            the mark "delivered" are one transaction, in whichever process.
  marks     in a short transaction afterwards. A process that is killed between the two delivers again: at least once.
  retries   what failed, further and further apart (`retry.py`). Meanwhile later events of the same aggregate (resource
            type and id) are set aside, where no look finds them, and others are not. After the last try it is a dead
            letter. Once an event is delivered or given up, the next ones of its aggregate are released.

Each subscriber has a thread and rows of its own, so one that fails or hangs holds up no other. One more thread renews
the lease while something is delivered, and one gives up what is owed to subscribers that are gone from the settings.
After KEPT, events that are owed to no subscriber are forgotten, and dead letters with them. No error ends a thread.
Each look and each transaction costs a batch at most, however much waits.

Not promised: order between aggregates, or beyond a dead letter; that a subscriber sees an event only once.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from weakref import WeakMethod

from backend.delivery.lease import RENEW_SECONDS, Lease
from backend.delivery.retry import LONGEST_WAIT, attempt, log_failure, next_try
from backend.domain import Event
from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.infrastructure.transaction import Tx
from backend.repositories import outbox
from backend.repositories.outbox import Delivery
from backend.services.events import Recorder, Subscriber

POLL_SECONDS = 1.0  # between two looks for what other processes have committed, and for retries
PAUSE_SECONDS = 0.2  # between two batches: under load many events share a transaction
FULL_PAUSE_SECONDS = 0.02  # after a full batch, when more is due: the lock is the requests' in between
BATCH = 100
BATCH_SECONDS = 1.0  # of deliveries that may have to be made again
KEPT = 7 * 86_400_000  # milliseconds
LAG = 60_000  # milliseconds that something may be due without alarm
LAG_LOOKS = 3
LAG_LOOK_SECONDS = 0.1  # between two
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
        self._pruned = 0  # up to this number of the outbox

    def start(self) -> None:
        """Start delivering. Idempotent. A thread that the system refuses is asked for again by the next call."""
        work = [self._keep_lease, self._give_up, *(partial(self._serve, each) for each in self._subscribers)]
        with self._start:
            for each in work[len(self._threads) :]:
                thread = threading.Thread(target=self._repeat, args=[each], daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError):
                    log.exception("the relay cannot start a thread")
                    return
                self._threads.append(thread)
            self.started = True

    def wake(self, event: Event) -> None:
        """There is something new, for those who want it: each bell that rings costs a look into the outbox."""
        for subscriber in self._subscribers:
            if subscriber.is_owed(event):
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

        A clock that jumps makes everything late until the relay comes to it: so wake the relay and look again, for
        a third of a second, before saying so.
        """
        for _ in range(LAG_LOOKS):
            if not any(self._is_late(subscriber) for subscriber in self._subscribers):
                return
            for bell in self._bells.values():
                bell.set()
            time.sleep(LAG_LOOK_SECONDS)
        raise Unavailable(f"Events have been due for more than {LAG // 1000} s.")

    def _is_late(self, subscriber: Subscriber) -> bool:
        due = [delivery for delivery in self._due(subscriber, BATCH) if not delivery.is_behind]
        return any(self._database.now() - delivery.due_since > LAG for delivery in due)

    def _repeat(self, work: Callable[[], None]) -> None:
        """A thread's life: no error ends it before `stop()`."""
        while not self._stopping.is_set():
            try:
                work()
            except Unavailable:
                self._stopping.wait(POLL_SECONDS)  # the database has said why
            except BaseException:  # also on MemoryError, when logging may fail as well, and SystemExit
                with suppress(BaseException):
                    try:
                        log.exception("unforeseen error")
                    finally:
                        self._stopping.wait(POLL_SECONDS)
        self._database.close()

    def _serve(self, subscriber: Subscriber) -> None:
        """One look, what there is to do, and the pause after it."""
        pause = self._deliver_batch(subscriber)
        if pause:
            self._stopping.wait(pause)
        else:
            bell = self._bells[subscriber.name]
            bell.wait(POLL_SECONDS)
            bell.clear()

    def _deliver_batch(self, subscriber: Subscriber) -> float:
        """The seconds to pause; 0 if nothing was to be done, or not by this process, or not now."""
        if not self._due(subscriber, 1) or not self._may_deliver(subscriber):
            return 0
        if subscriber.record:
            return self._record(subscriber, subscriber.record)
        self._delivering.add(subscriber.name)
        try:
            due = self._due(subscriber, BATCH)  # again: now it is ours alone
            outcomes = self._outcomes(subscriber, due)
            self._mark(subscriber, due, outcomes)
        finally:
            self._delivering.discard(subscriber.name)
        only_failures = len(outcomes) == len(due) and all(problem for _, problem in outcomes)
        return _pause(len(due), POLL_SECONDS if only_failures else FULL_PAUSE_SECONDS)

    def _record(self, subscriber: Subscriber, record: Recorder) -> float:
        with self._database.transaction() as tx:  # whatever others have recorded meanwhile is not due any more
            due = outbox.due(tx, subscriber.name, LONGEST_WAIT, BATCH)
            record(tx, [delivery.event for delivery in due])
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery in due])
            self._prune(tx)
        return _pause(len(due), FULL_PAUSE_SECONDS)

    def _due(self, subscriber: Subscriber, limit: int) -> Sequence[Delivery]:
        with self._database.snapshot() as tx:
            return outbox.due(tx, subscriber.name, LONGEST_WAIT, limit)

    def _may_deliver(self, subscriber: Subscriber) -> bool:
        return not self._stopping.is_set() and (subscriber.deliver is None or self._lease.hold())

    def _outcomes(self, subscriber: Subscriber, due: Sequence[Delivery]) -> list[Outcome]:
        """Deliver, as long as we may; what came of it."""
        outcomes: list[Outcome] = []
        failed: set[str] = set()  # aggregates: what comes after must wait
        end = self._clock() + BATCH_SECONDS
        for delivery in due:
            if delivery.is_behind or delivery.aggregate in failed:
                continue
            if self._clock() > end or not self._may_deliver(subscriber):
                break
            problem = attempt(subscriber, delivery.event)
            outcomes.append((delivery, problem))
            if problem:
                failed.add(delivery.aggregate)
        return outcomes

    def _mark(self, subscriber: Subscriber, due: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        failed = [(delivery, problem) for delivery, problem in outcomes if problem]
        with self._database.transaction() as tx:
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery, problem in outcomes if not problem])
            settled = {delivery.aggregate for delivery, _ in outcomes}
            for delivery, _ in failed:
                due_at = next_try(delivery, tx.now)
                outbox.set_failed(tx, subscriber.name, delivery, due_at)
                if due_at is not None:
                    settled.discard(delivery.aggregate)
            for aggregate in settled:
                outbox.release(tx, subscriber.name, aggregate, max(1, BATCH // len(settled)))
            outbox.set_behind(tx, subscriber.name, [delivery.seq for delivery in due])
            self._prune(tx)
        for delivery, problem in failed:
            log_failure(subscriber, delivery, problem)

    def _keep_lease(self) -> None:
        """While a delivery takes long, the lease must not lapse."""
        if not self._stopping.wait(RENEW_SECONDS) and self._delivering:
            self._lease.hold()

    def _prune(self, tx: Tx) -> None:
        self._pruned = outbox.prune(tx, tx.now - KEPT, self._pruned, BATCH)

    def _give_up(self) -> None:
        """A batch of what is owed to subscribers that are gone, and the pause after it."""
        with self._database.snapshot() as tx:
            gone = outbox.others_owed(tx, self._bells)
        if gone:
            with self._database.transaction() as tx:
                outbox.give_up(tx, gone[0], BATCH)
        self._stopping.wait(FULL_PAUSE_SECONDS if gone else POLL_SECONDS)


def _pause(due: int, if_full: float) -> float:
    """After a batch of so many that were due."""
    if due >= BATCH:
        return if_full
    return PAUSE_SECONDS if due else 0
