"""Retry: a payment with a key is made once, however often it is asked for.

Task: The answer is "paid" for the first request and for each repetition. A payment that failed may be tried again.
Invariant: The key is stored if and only if the payment was made.
Hint: Two things that are true together are written in one transaction. Two requests with one key may arrive at once,
so the look at the keys belongs into it, too.
Run: make exercise L=retry
"""

import sqlite3

SCHEMA = """
    CREATE TABLE accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE keys (key TEXT NOT NULL);
"""


class InsufficientFunds(Exception):
    """The client gets a 422."""


def pay_once(db: sqlite3.Connection, key: str, amount: int) -> str:
    if db.execute("SELECT 1 FROM keys WHERE key = ?", [key]).fetchone():
        return "paid"
    db.execute("INSERT INTO keys VALUES (?)", [key])
    db.commit()
    pay(db, amount)
    db.commit()
    return "paid"


def pay(db: sqlite3.Connection, amount: int) -> None:
    """From Ada to Grace. This function is right: it is called in a transaction, and leaves the COMMIT to its caller."""
    taken = "UPDATE accounts SET balance = balance - :amount WHERE name = 'ada' AND balance >= :amount"
    if not db.execute(taken, {"amount": amount}).rowcount:
        raise InsufficientFunds
    db.execute("UPDATE accounts SET balance = balance + ? WHERE name = 'grace'", [amount])
