"""Deferred transaction: all of ten fail at once, although each may wait for thirty seconds.

Catalogue: "Put reads and writes that belong together into one transaction."

Goes wrong: BEGIN takes no lock. Ten transactions read, another connection commits, and all ten hold a snapshot that is
out of date. Waiting cannot help them, so SQLite does not wait: SQLITE_BUSY_SNAPSHOT, "database is locked", whatever
the time-out.

Bitten: https://github.com/IntersectMBO/ouroboros-consensus/pull/2233: 297 such errors on twelve nodes, all from one
UPDATE that followed a SELECT. Such an error takes its node down.

Read: `backend/infrastructure/database.py` says BEGIN IMMEDIATE, which takes the write lock before the first read.

Exercise: Replace BEGIN in `count_up` by BEGIN IMMEDIATE, and move the barrier before it, because now only one
transaction at a time gets further. How many fail? What is the count at the end?
"""

import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing

from tests.at_once import at_once
from tests.lessons import Stage, Verdict

CROWD, TIMEOUT = 10, 30


def count_up(database, barrier):
    with closing(sqlite3.connect(database, timeout=TIMEOUT, isolation_level=None)) as db:
        db.execute("BEGIN")
        (count,) = db.execute("SELECT count FROM counter").fetchone()
        barrier.wait(60)  # all ten transactions have read, and another connection has committed
        asked = time.monotonic()
        try:
            db.execute("UPDATE counter SET count = ?", [count + 1])
            db.execute("COMMIT")
            return "committed", 0
        except sqlite3.OperationalError as error:
            return error.sqlite_errorname, time.monotonic() - asked


def naive(stage: Stage) -> list[Verdict]:
    database = stage.folder / "naive.db"
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE counter AS SELECT 0 AS count")
        barrier = threading.Barrier(CROWD, action=lambda: db.execute("UPDATE counter SET count = 100"))
        outcomes = at_once([lambda: count_up(database, barrier)] * CROWD)
    errors = Counter(name for name, _ in outcomes if name != "committed")
    waited = max(seconds for _, seconds in outcomes)
    return [verdict(errors.total(), f"after {waited:.2f} of {TIMEOUT} s: {errors.most_common(1)[0][0]}")]


def ours(stage: Stage) -> list[Verdict]:
    workers = [stage.api(busy_timeout_seconds=TIMEOUT) for _ in range(2)]
    root, ada = workers[0].admin(), workers[0].sign_up("Ada")
    purse, other = workers[0].account(ada, balance=CROWD, admin=root), workers[0].account(ada)
    body = {"fromAccountId": purse, "toAccountId": other, "amount": 1}
    began = time.monotonic()
    answers = at_once([lambda n=n: workers[n % 2].post("/transfers", ada, body) for n in range(CROWD)])
    failed = sum(answer.status_code != 201 for answer in answers)
    return [verdict(failed, f"the last had its turn after {time.monotonic() - began:.2f} s")]


def verdict(failed: int, how: str) -> Verdict:
    return Verdict(failed == 0, failed, f"{failed} of {CROWD} transactions failed, {how}")
