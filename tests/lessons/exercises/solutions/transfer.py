"""The write lock comes before the read. `with db` commits, or rolls back if the block raises."""

import sqlite3


class InsufficientFunds(Exception):
    """The client gets a 422."""


def transfer(db: sqlite3.Connection, source: int, target: int, amount: int) -> None:
    db.execute("BEGIN IMMEDIATE")
    with db:
        (balance,) = db.execute("SELECT balance FROM accounts WHERE id = ?", [source]).fetchone()
        if balance < amount:
            raise InsufficientFunds
        db.execute("UPDATE accounts SET balance = ? WHERE id = ?", [balance - amount, source])
        db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, target])
