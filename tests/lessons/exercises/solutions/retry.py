"""Key and payment are one transaction. An error rolls both back, and the lock lets one request at a time look."""

import sqlite3

SCHEMA = """
    CREATE TABLE accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE keys (key TEXT NOT NULL);
"""


class InsufficientFunds(Exception):
    """The client gets a 422."""


def pay_once(db: sqlite3.Connection, key: str, amount: int) -> str:
    db.execute("BEGIN IMMEDIATE")
    with db:
        if not db.execute("SELECT 1 FROM keys WHERE key = ?", [key]).fetchone():
            db.execute("INSERT INTO keys VALUES (?)", [key])
            pay(db, amount)
    return "paid"


def pay(db: sqlite3.Connection, amount: int) -> None:
    """From Ada to Grace. This function is right: it is called in a transaction, and leaves the COMMIT to its caller."""
    taken = "UPDATE accounts SET balance = balance - :amount WHERE name = 'ada' AND balance >= :amount"
    if not db.execute(taken, {"amount": amount}).rowcount:
        raise InsufficientFunds
    db.execute("UPDATE accounts SET balance = balance + ? WHERE name = 'grace'", [amount])
