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
from tests.waiting import wait_until

ROWS, WRITES = 60_000, 25
OLD = f"""WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
    INSERT INTO idempotency_keys (user_id, key, fingerprint, data, created_at)
    SELECT :user, cast(i AS BLOB), x'', '{{}}', 0 FROM n"""


def clean_up(db, until):
    db.execute("DELETE FROM idempotency_keys WHERE created_at <= ?", [until])


def naive(stage: Stage) -> list[Verdict]:
    locked = threading.Event()

    def work() -> None:
        with closing(sqlite3.connect(stage.database, timeout=30, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            locked.set()
            clean_up(db, until=0)
            db.execute("COMMIT")

    return [attack(stage.api(), work, begun=locked.is_set, stop=lambda: None)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    housekeeping = Housekeeping(Settings(database_path=stage.database), api.app.database)
    return [attack(api, housekeeping.tidy, begun=lambda: expired(api) < ROWS, stop=housekeeping.stop)]


def attack(api: Api, work: Callable[[], object], begun: Callable[[], bool], stop: Callable[[], None]) -> Verdict:
    """Write while the clean-up works, and count the writes that are committed before its last row is gone."""
    ada = api.sign_up("Ada")
    with api.app.database.transaction() as tx:
        tx.run(OLD, user=ada.id)
    thread = threading.Thread(target=work)
    thread.start()
    wait_until(begun)
    meanwhile, longest = 0, 0.0
    for _ in range(WRITES):
        asked = time.monotonic()
        assert api.post("/accounts", ada, {"currency": "EUR"}).status_code == 201
        longest = max(longest, time.monotonic() - asked)
        meanwhile += expired(api) > 0
    stop()
    thread.join()
    says = f"{meanwhile} of {WRITES} writes came through during the clean-up; the longest took {longest * 1000:,.0f} ms"
    return Verdict(meanwhile == WRITES, longest, says)


def expired(api: Api) -> int:
    with api.app.database.read() as tx:
        return int(tx.rows("SELECT count(*) FROM idempotency_keys")[0][0])
