"""Writers that starve: SQLite's busy handler sleeps, and the lock goes to the writer that happens to be awake.

Catalogue: "For concurrent writers set `busy_timeout`; SQLite waits and tries again."

Goes wrong: To wait is to sleep, for up to 100 ms, and look again. A busy process frees the lock for some 50 µs between
two of its transactions, and the sleeper of another process hardly ever looks just then. It waits until the busy one is
idle, or until its time is up and the client gets a 503. The core waits like this: it is right, and unfair.

Bitten: https://github.com/transact-rs/sqlx/issues/3920, where the first of two tasks finished all its transactions
before the other had one.

Read: `backend/production/write_gate.py`: a queue in the kernel, by `flock`, in front of SQLite's lock.
`backend/infrastructure/database.py` is the core's version, with `busy_timeout` alone.

Exercise: Set TURNS to 300. How does the wait grow, in the core and in production? Then let the busy process sleep for 5
ms between two transactions: how unfair is the core now?
"""

import statistics
import time

from tests.forked import Forked, Signal
from tests.lessons import Stage, Verdict
from tests.wirings import database_class_of

ROUNDS, TURNS, HOLD = 3, 60, 0.008  # seconds for which a turn holds the lock
TRIES = 5  # a sleeper may be lucky
WRITE = "INSERT INTO cache_invalidations (key) VALUES ('products')"


def naive(stage: Stage) -> list[Verdict]:
    for _ in range(TRIES):
        verdict = attack(stage, "core")
        if not verdict.holds:
            break
    return [verdict]


def ours(stage: Stage) -> list[Verdict]:
    return [attack(stage, "production")]


def attack(stage: Stage, wiring: str) -> Verdict:
    """One process writes without a pause; another asks for one turn. How many of the busy one's turns does it wait?"""
    kind, path, ask, served = database_class_of(wiring), stage.database, Signal(), Signal()

    def busy() -> list[float]:
        database, times = kind(path, 60), []
        for _ in range(ROUNDS):
            for turn in range(TURNS):
                with database.transaction() as tx:
                    tx.run(WRITE)
                    times.append(time.monotonic())
                    if turn == 0:
                        ask.say()
                    time.sleep(HOLD)
            served.wait()
        return times

    def patient() -> list[tuple[float, float]]:
        database, waits = kind(path, 60), []
        for _ in range(ROUNDS):
            ask.wait()
            asked = time.monotonic()
            with database.transaction() as tx:
                tx.run(WRITE)
                waits.append((asked, time.monotonic()))
            served.say()
        return waits

    times, waits = (child.result() for child in [Forked(busy), Forked(patient)])
    overtaken = statistics.median(sum(asked < at < got for at in times) for asked, got in waits)
    waited = statistics.median(got - asked for asked, got in waits)
    says = f"a writer is overtaken {overtaken} times before its turn, and waits {waited * 1000:,.0f} ms"
    return Verdict(overtaken < TURNS / 2, overtaken, says)
