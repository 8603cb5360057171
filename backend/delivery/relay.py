"""The relay: delivers the events of the outbox after their commit, at least once, even if processes are killed.

An event and one delivery for each of its subscribers are written in the transaction that the event describes. In each
process, one thread a subscriber looks for deliveries that are due: at once after a commit of its own process, otherwise
once a second. It then works through a batch in three steps:

  claim    One short transaction moves the time at which the deliveries are due to the end of the claim, CLAIM
           milliseconds from now. Until then no other process finds them. The write lock makes the claim exclusive.
  deliver  Outside any transaction, in the order of commits. Later events of an aggregate (resource type and id) wait
           until the earlier one has been delivered; other aggregates do not, and another process may deliver them
           at the same time.
  settle   One short transaction deletes what was delivered, schedules the next try of what failed (`retry.py`), and
           gives back the rest. After the last try an event becomes a dead letter, and its aggregate goes on.

If a process is killed before it has settled, its claims lapse, and another process delivers those events again. A
batch begins no delivery once BATCH_SECONDS have passed, so a claim outlasts its batch if each delivery ends within
DELIVERY_SECONDS. A process that takes longer (SIGSTOP, a wall clock set forward) finds that another one has claimed
the aggregate, and settles nothing of it. Every process begins with the oldest event of an aggregate, so first
arrivals are in order even then.

A subscriber that only records needs no claim: reading the batch, its effect and deleting it are one transaction.

One more thread gives up what is owed to subscribers that are no longer configured. No transaction costs more than a
batch, however much waits. Delivered events stay in the table: operations/housekeeping.py deletes them after a week.

Not promised: order between aggregates or after a dead letter; that a subscriber sees an event only once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from backend.delivery.retry import LONGEST_WAIT, attempt, log_failure, next_try
from backend.domain import Event, Timestamp
from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.repositories import outbox
from backend.repositories.outbox import Delivery
from backend.services.events import DELIVERY_SECONDS, Recorder, Subscriber

POLL_SECONDS = 1.0  # between two looks for retries, lapsed claims and the commits of other processes
PAUSE_SECONDS = 0.2  # between two batches: under load many events share a transaction
SHORT_PAUSE_SECONDS = 0.02  # if more is due: meanwhile requests get the write lock
BATCH = 100  # to deliver
RECORDED = 400  # in one transaction each PAUSE_SECONDS: 2,000 events a second; more transactions cost writers more
BATCH_SECONDS = 1.0  # after which a batch is settled: a kill repeats no more than this
CLAIM = int((BATCH_SECONDS + DELIVERY_SECONDS) * 1000)  # milliseconds
LAG = 60_000  # milliseconds for which an event may be due before `check_lag` raises
LAG_LOOKS = 3
LAG_LOOK_SECONDS = 0.1  # between two
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)

Outcome = tuple[Delivery, str]  # the problem, or "" if the event was delivered


class Relay:
    """Thread-safe. Its threads run from `start()` to `stop()`. `clock` returns seconds and never goes back."""

    def __init__(
        self, database: Database, subscribers: Sequence[Subscriber], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.started = False
        self._database = database
        self._subscribers = subscribers
        self._clock = clock
        self._start = threading.Lock()  # guards _threads
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._wakeups = {subscriber.name: threading.Event() for subscriber in subscribers}

    def start(self) -> None:
        """Start delivering. Idempotent. If the system refuses a thread, the next call asks for it again."""
        work = [self._give_up, *(partial(self._serve, subscriber) for subscriber in self._subscribers)]
        with self._start:
            for each in work[len(self._threads) :]:
                thread = threading.Thread(target=self._repeat, args=[each], name="relay", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError):
                    log.exception("the relay cannot start a thread")
                    return
                self._threads.append(thread)
            self.started = True

    def wake(self, event: Event) -> None:
        """Look for deliveries now, for the subscribers that want the event."""
        for subscriber in self._subscribers:
            if subscriber.is_owed(event):
                self._wakeups[subscriber.name].set()

    def stop(self) -> None:
        """Begin no more deliveries. Those that end within STOP_SECONDS are settled, and their claims given back."""
        self._stopping.set()
        for wakeup in self._wakeups.values():
            wakeup.set()
        end = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def check_lag(self) -> None:
        """Raise Unavailable if a delivery has been due for LAG. One that is claimed or waits for a retry is not due.

        After a jump of the wall clock everything is late until the relay has looked once. So this wakes the relay and
        looks again, LAG_LOOKS times in all, before it raises.
        """
        for _ in range(LAG_LOOKS):
            if not any(self._is_late(subscriber) for subscriber in self._subscribers):
                return
            for wakeup in self._wakeups.values():
                wakeup.set()
            time.sleep(LAG_LOOK_SECONDS)
        raise Unavailable(f"Events have been due for more than {LAG // 1000} s.")

    def _is_late(self, subscriber: Subscriber) -> bool:
        return any(self._database.now() - delivery.due_since > LAG for delivery in self._due(subscriber, BATCH))

    def _repeat(self, work: Callable[[], None]) -> None:
        """The body of each thread. No error ends it before `stop()`."""
        self._database.dedicate_thread()
        while not self._stopping.is_set():
            try:
                work()
            except Unavailable:
                self._stopping.wait(POLL_SECONDS)  # the database has logged why
            except BaseException:  # also SystemExit, and MemoryError, after which logging may fail as well
                with suppress(BaseException):
                    try:
                        log.exception("unexpected error")
                    finally:
                        self._stopping.wait(POLL_SECONDS)
        self._database.close()

    def _serve(self, subscriber: Subscriber) -> None:
        """Look once. Handle a batch if something is due, then pause; else wait to be woken."""
        if not self._due(subscriber, 1):
            wakeup = self._wakeups[subscriber.name]
            wakeup.wait(POLL_SECONDS)
            wakeup.clear()
        elif subscriber.record:
            self._record(subscriber, subscriber.record)
            self._stopping.wait(PAUSE_SECONDS)
        else:
            more = self._deliver(subscriber)
            self._stopping.wait(SHORT_PAUSE_SECONDS if more else PAUSE_SECONDS)

    def _due(self, subscriber: Subscriber, limit: int) -> Sequence[Delivery]:
        with self._database.snapshot() as tx:
            return outbox.due(tx, subscriber.name, LONGEST_WAIT, limit)

    def _record(self, subscriber: Subscriber, record: Recorder) -> None:
        """Record a batch, in the transaction that deletes its deliveries."""
        with self._database.transaction() as tx:
            tx.lock(subscriber.name)
            due = outbox.due(tx, subscriber.name, LONGEST_WAIT, RECORDED)
            record(tx, [delivery.event for delivery in due])
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery in due])

    def _deliver(self, subscriber: Subscriber) -> bool:
        """Claim, deliver and settle a batch. Returns whether more may be due, and not every delivery failed."""
        with self._database.transaction() as tx:
            until = Timestamp(tx.now + CLAIM)
            end = self._clock() + BATCH_SECONDS
            claimed = outbox.claim(tx, subscriber.name, until, LONGEST_WAIT, BATCH)
        if not claimed:  # another process was faster
            return False
        outcomes = self._outcomes(subscriber, claimed, end)
        released = self._settle(subscriber, claimed, until, outcomes)
        return (released or len(claimed) >= BATCH) and not all(problem for _, problem in outcomes)

    def _outcomes(self, subscriber: Subscriber, claimed: Sequence[Delivery], end: float) -> list[Outcome]:
        """Deliver until `end`, at least one, and nothing of an aggregate after a failure."""
        outcomes: list[Outcome] = []
        failed: set[str] = set()  # aggregates
        for delivery in claimed:
            if self._stopping.is_set() or (outcomes and self._clock() > end):
                break
            if delivery.aggregate not in failed:
                problem = attempt(subscriber, delivery.event)
                outcomes.append((delivery, problem))
                if problem:
                    failed.add(delivery.aggregate)
        return outcomes

    def _settle(
        self, subscriber: Subscriber, claimed: Sequence[Delivery], until: Timestamp, outcomes: Sequence[Outcome]
    ) -> bool:
        """Store the outcomes, unless another process has claimed the aggregate. Returns whether more is due."""
        with self._database.transaction() as tx:
            held = outbox.end_claim(tx, subscriber.name, claimed, until)
            mine = [(delivery, problem) for delivery, problem in outcomes if delivery.aggregate in held]
            outbox.set_delivered(tx, subscriber.name, [delivery.seq for delivery, problem in mine if not problem])
            failed = [(delivery, problem) for delivery, problem in mine if problem]
            for delivery, _ in failed:
                outbox.set_failed(tx, subscriber.name, delivery.seq, next_try(delivery, tx.now))
            released = [outbox.release(tx, subscriber.name, aggregate) for aggregate in held]
        for delivery, problem in failed:
            log_failure(subscriber, delivery, problem)
        return any(released)

    def _give_up(self) -> None:
        """Give up a batch of what is owed to a subscriber that is no longer configured; pause."""
        with self._database.snapshot() as tx:
            gone = outbox.others_owed(tx, self._wakeups)
        if gone:
            with self._database.transaction() as tx:
                outbox.give_up(tx, gone[0], BATCH)
        self._stopping.wait(SHORT_PAUSE_SECONDS if gone else POLL_SECONDS)
