"""Lost update: twenty transfers read one balance, and nineteen of them are forgotten.

Catalogue: "The service reads the account, checks the balance and saves the new one."

Goes wrong: Twenty requests read 1,000.00 before the first of them writes. Each finds enough, and each writes 1,000.00
- 100.00. All twenty payees are paid, and the payer has paid once.

Bitten: https://github.com/bavix/laravel-wallet/issues/484, where concurrent withdrawals all went through, whatever the
balance was.

Read: `backend/services/ledger.py` reads balances in a transaction that `backend/infrastructure/database.py` begins
with BEGIN IMMEDIATE: the write lock comes before the first read.

Exercise: `make exercise L=transfer`: repair `tests/lessons/exercises/transfer.py` with a lock before the read. Then do
without it: one UPDATE subtracts in SQL and has the check in its WHERE. What must the function do with `rowcount`?
"""

import sqlite3
import threading
from contextlib import closing

from tests.at_once import at_once
from tests.lessons import Stage, Verdict, money

CROWD, BALANCE, AMOUNT = 20, 1_000_00, 100_00


def transfer(database, source, target, amount, barrier):
    with closing(sqlite3.connect(database, timeout=60)) as db:
        (balance,) = db.execute("SELECT balance FROM accounts WHERE id = ?", [source]).fetchone()
        if balance < amount:
            raise ValueError("insufficient funds")
        barrier.wait(60)  # all twenty requests have read
        db.execute("UPDATE accounts SET balance = ? WHERE id = ?", [balance - amount, source])
        db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target])
        db.commit()


def naive(stage: Stage) -> list[Verdict]:
    barrier = threading.Barrier(CROWD)
    with closing(sqlite3.connect(stage.folder / "naive.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        db.executemany("INSERT INTO accounts VALUES (?, ?)", [(0, BALANCE), *((n, 0) for n in range(1, CROWD + 1))])
        db.commit()
        at_once([lambda n=n: transfer(stage.folder / "naive.db", 0, n, AMOUNT, barrier) for n in range(1, CROWD + 1)])
        (total,) = db.execute("SELECT sum(balance) FROM accounts").fetchone()
    return [verdict(CROWD, 0, total)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada, grace = api.admin(), api.sign_up("Ada"), api.sign_up("Grace")
    purse = api.account(ada, balance=BALANCE, admin=root)
    payees = [api.account(grace) for _ in range(CROWD)]

    def pay(payee):
        return api.post("/transfers", ada, {"fromAccountId": purse, "toAccountId": payee, "amount": AMOUNT})

    answers = at_once([lambda payee=payee: pay(payee) for payee in payees])
    total = api.balance(purse, ada) + sum(api.balance(payee, grace) for payee in payees)
    codes = [answer.status_code for answer in answers]
    return [verdict(codes.count(201), codes.count(422), total)]


def verdict(passed: int, refused: int, total: int) -> Verdict:
    became = "stayed" if total == BALANCE else "became"
    says = f"{money(BALANCE)} {became} {money(total)}: {passed} transfers of {money(AMOUNT)} passed, {refused} refused"
    affordable = BALANCE // AMOUNT
    holds = (passed, refused, total) == (affordable, CROWD - affordable, BALANCE)
    return Verdict(holds, abs(total - BALANCE), says)
