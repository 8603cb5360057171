"""One unbounded DELETE: the nightly clean-up locks every writer out until it is done.

Catalogue: "A nightly job deletes expired rows: `DELETE FROM … WHERE created_at < :yesterday`."

Goes wrong: SQLite has one write lock, and a statement holds it to its end: for a minute, if it deletes a year of rows.
Every request that writes waits as long, or gets a 503 after `BUSY_TIMEOUT_SECONDS`. Other engines have finer locks, and
the statement holds those to its end, too.

Bitten: https://github.com/Expensify/Bedrock/pull/179, where deleting some 22 million rows blocked for half an hour.

Read: `backend/operations/housekeeping.py`: 50 rows a transaction, with a pause in which other writers get the lock.
Each batch finds its rows by an index, so it costs what it deletes and not what the table holds.

Exercise: Repair `clean_up` with a loop of transactions that delete 50 rows each. How many writes come through without a
pause between them? What does a batch cost without the index on `created_at`?
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing

from backend.operations.housekeeping import Housekeeping
from backend.settings import Settings
from tests.conftest import Api
from tests.lessons import Stage, Verdict

ROWS, WRITES = 60_000, 25
OLD = f"""WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
    INSERT INTO idempotency_keys (user_id, key, fingerprint, data, created_at)
    SELECT :user, cast(i AS BLOB), x'', '{{}}', 0 FROM n"""


def clean_up(db, until):
    db.execute("DELETE FROM idempotency_keys WHERE created_at <= ?", [until])


def naive(stage: Stage) -> list[Verdict]:
    def work(begun: threading.Event, done: threading.Event) -> None:
        with closing(sqlite3.connect(stage.database, timeout=30, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            begun.set()
            clean_up(db, until=0)
            done.set()
            db.execute("COMMIT")

    return [attack(stage.api(), work, lambda: None)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    housekeeping = Housekeeping(Settings(database_path=stage.database), api.app.database)

    def work(begun: threading.Event, done: threading.Event) -> None:
        begun.set()
        housekeeping.tidy()
        done.set()

    return [attack(api, work, housekeeping.stop)]


def attack(api: Api, work: Callable[[threading.Event, threading.Event], None], stop: Callable[[], None]) -> Verdict:
    """Write while the clean-up works, and count the writes that are committed before it is done."""
    ada = api.sign_up("Ada")
    with api.app.database.transaction() as tx:
        tx.run(OLD, user=ada.id)
    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=[begun, done])
    thread.start()
    assert begun.wait(60)
    committed, longest = 0, 0.0
    for _ in range(WRITES):
        asked = time.monotonic()
        assert api.post("/accounts", ada, {"currency": "EUR"}).status_code == 201
        longest = max(longest, time.monotonic() - asked)
        committed += not done.is_set()
    stop()
    thread.join()
    says = f"{committed} of {WRITES} writes came through during the clean-up; the longest took {longest * 1000:,.0f} ms"
    return Verdict(committed == WRITES, longest, says)
