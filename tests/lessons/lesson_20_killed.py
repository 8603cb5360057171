"""Killed at every step of a transfer: the money has left one account and reached no other.

Catalogue: "Withdraw from the source, deposit to the target, save the transaction."

Goes wrong: Each step is a transaction of its own. A process that is killed after the first has burnt the amount, and
one that is killed after the second has moved it without a record. Tests do not see it, because no test kills the
process.

Bitten: https://github.com/blnkfinance/blnk/issues/233, a ledger that changed balances in one transaction and recorded
the transfer in another.

Read: `backend/services/ledger.py`, `Ledger.transfer`, in one `transaction()` of `backend/infrastructure/database.py`.
`tests/production/test_kill_at_every_step.py` also repeats each killed request with its key.

Exercise: Repair `transfer` with BEGIN and COMMIT. At which step can the process still be killed so that the client does
not know whether the money has moved? What must the client send to ask again without paying twice?
"""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from unittest import mock

from tests.forked import Forked
from tests.lessons import Stage, Verdict, money

BALANCE, AMOUNT, MOST = 1_000_00, 100_00, 100
WRITES = ("BEGIN IMMEDIATE", "UPDATE", "INSERT")


def transfer(db, source, target, amount):
    db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, source])
    db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target])
    db.execute("INSERT INTO transfers VALUES (?, ?, ?)", [source, target, amount])


def naive(stage: Stage) -> list[Verdict]:
    path = stage.folder / "naive.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        db.execute("CREATE TABLE transfers (source INTEGER, target INTEGER, amount INTEGER)")
        db.execute("INSERT INTO accounts VALUES (1, ?), (2, 0)", [BALANCE])

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:  # each statement is a transaction
            transfer(db, 1, 2, AMOUNT)

    def books() -> tuple[int, int, int]:
        with closing(sqlite3.connect(path)) as db:
            balances = [balance for (balance,) in db.execute("SELECT balance FROM accounts ORDER BY id")]
            return balances[0], balances[1], db.execute("SELECT sum(amount) FROM transfers").fetchone()[0]

    return verdicts(killed_everywhere(work), *books())


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada, grace = api.admin(), api.sign_up("Ada"), api.sign_up("Grace")
    purse, other = api.account(ada, balance=BALANCE, admin=root), api.account(grace)

    def work() -> None:
        body = {"fromAccountId": purse, "toAccountId": other, "amount": AMOUNT}
        assert api.post("/transfers", ada, body).status_code == 201

    api.app.relay.stop()
    api.app.database.close()  # no connection crosses the fork
    kills = killed_everywhere(work)
    recorded = sum(entry["amount"] for entry in api.get(f"/accounts/{other}/transactions", grace).json["data"])
    return verdicts(kills, api.balance(purse, ada), api.balance(other, grace), recorded)


def killed_everywhere(work: Callable[[], None]) -> int:
    """Run `work` in processes that are killed before its first statement, its second, … until one lives; the kills."""
    return next(step - 1 for step in range(1, MOST) if lives(work, step))


def lives(work: Callable[[], None], step: int) -> bool:
    """Run `work` in a process that is killed before statement number `step`, counted from its first write."""
    count, connect = 0, sqlite3.connect

    def on_statement(sql: str) -> None:
        nonlocal count
        count += bool(count) or sql.startswith(WRITES)
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*arguments, **options) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(on_statement)
        return connection

    def child() -> None:
        with mock.patch.object(sqlite3, "connect", watched):
            work()

    with suppress(EOFError):  # it was killed
        Forked(child).result()
        return True
    return False


def verdicts(kills: int, source: int, target: int, recorded: int) -> list[Verdict]:
    total = source + target
    became = "stayed" if total == BALANCE else "became"
    burnt = f"killed before each of {kills} statements: {money(BALANCE)} {became} {money(total)}"
    unrecorded = f"the target has {money(target)}, and the records say {money(recorded)}"
    return [
        Verdict(total == BALANCE, abs(total - BALANCE), burnt),
        Verdict(target == recorded, abs(target - recorded), unrecorded),
    ]
