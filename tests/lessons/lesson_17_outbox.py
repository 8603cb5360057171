"""An event between COMMIT and publish: the order is on disk, and no other system hears of it.

Catalogue: "After saving, publish an event; subscribers do the rest."

Goes wrong: `commit()` and `publish()` are two steps, and a process can be killed between them: by a deployment, by the
kernel when memory is short, by a power cut. The order exists, and the mail, the invoice and the search index do not.
With the steps in the other order, subscribers hear of orders that do not exist. No retry helps: no process knows that
an event is missing.

Bitten: https://github.com/openedx/openedx-events/pull/292, which records that events sent on commit are lost while the
broker is down or when the process crashes.

Read: `backend/services/events.py`, `EventBus.publish`: event and deliveries are rows of the same transaction.
`backend/delivery/relay.py` delivers what is owed, from whichever process is alive.

Exercise: The webhook now arrives at least once. Let the receiver answer and kill the process before the relay's own
COMMIT: what arrives next, and which header lets the receiver tell?
"""

import os
import signal
import sqlite3
import urllib.request
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from unittest import mock

from app import App
from backend.infrastructure.database import Database
from backend.repositories import outbox
from backend.settings import Networks
from tests.conftest import PASSWORD
from tests.forked import Forked
from tests.lessons import Stage, Verdict
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

WRITES = 5  # each in a process that is killed between its COMMIT and the next step
TRANSACTION = Database.transaction


def place_order(db, publish):
    db.execute("INSERT INTO orders DEFAULT VALUES")
    db.commit()
    publish(b"order.placed")


def naive(stage: Stage) -> list[Verdict]:
    path = stage.folder / "naive.db"
    with receiving() as (receiver, port), closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")

        def publish(event: bytes) -> None:
            die()
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", event, timeout=30)

        def work(number: int) -> None:
            with closing(sqlite3.connect(path)) as db:
                place_order(db, publish)

        kill_each(work)
        (committed,) = db.execute("SELECT count(*) FROM orders").fetchone()
        return [verdict(committed, len(receiver.arrivals))]


def ours(stage: Stage) -> list[Verdict]:
    with receiving() as (receiver, port):
        hook = {"webhook_urls": (f"http://127.0.0.1:{port}/",), "webhook_secret": f"whsec_{'test' * 8}"}
        app = stage.api(**hook, webhook_allow_networks=Networks("127.0.0.0/8")).app

        def work(number: int) -> None:
            with mock.patch.object(Database, "transaction", dies_after_commit):
                app.users.sign_up(f"ada-{number}@example.com", PASSWORD, "Ada")

        kill_each(work)
        app.start()  # the relay of a process that lives
        wait_until(lambda: owed(app) == 0)
        with app.database.read() as tx:
            ((committed,),) = tx.rows("SELECT count(*) FROM users")
        return [verdict(committed, len({arrival.id for arrival in receiver.arrivals}))]


def owed(app: App) -> int:
    with app.database.snapshot() as tx:
        backlog = outbox.backlog(tx, most=WRITES)
    return backlog.due + backlog.waiting


def kill_each(work: Callable[[int], None]) -> None:
    for number in range(WRITES):
        with suppress(EOFError):  # it was killed
            Forked(lambda number=number: work(number)).result()
            raise AssertionError("the process lives")


@contextmanager
def dies_after_commit(database):
    with TRANSACTION(database) as tx:
        tx.after_commit(die)  # before every other action
        yield tx


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def verdict(committed: int, arrived: int) -> Verdict:
    says = f"{committed} writes committed by processes that were killed, {arrived} events arrived"
    return Verdict(arrived == committed == WRITES, committed - arrived, says)
