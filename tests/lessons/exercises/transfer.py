"""Transfer: twenty payments from one account, which has enough for ten.

Task: Ten of the twenty pass, the others raise `InsufficientFunds`.
Invariant: The sum of all balances stays what it was, and no balance is below zero, in any number of processes.
Hint: What was read must still be true when it is written. Either the lock comes before the read (BEGIN IMMEDIATE), or
one UPDATE checks and subtracts (`rowcount` says whether it did).
Run: make exercise L=transfer
"""

import sqlite3


class InsufficientFunds(Exception):
    """The client gets a 422."""


def transfer(db: sqlite3.Connection, source: int, target: int, amount: int) -> None:
    (balance,) = db.execute("SELECT balance FROM accounts WHERE id = ?", [source]).fetchone()
    if balance < amount:
        raise InsufficientFunds
    db.execute("UPDATE accounts SET balance = ? WHERE id = ?", [balance - amount, source])
    db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target])
    db.commit()
