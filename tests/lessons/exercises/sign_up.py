"""Sign up: one e-mail, one user.

Task: Twenty requests sign up with one e-mail at once. One of them creates the user, each other raises `EmailTaken`.
Invariant: No two rows have the same e-mail, whichever threads and processes write.
Hint: The check comes too early. Only the database knows, at the moment of the INSERT: change SCHEMA, too.
Run: make exercise L=sign_up
"""

import sqlite3

SCHEMA = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL)"


class EmailTaken(Exception):
    """The client gets a 409."""


def sign_up(db: sqlite3.Connection, email: str) -> None:
    if db.execute("SELECT 1 FROM users WHERE email = ?", [email]).fetchone():
        raise EmailTaken(email)
    db.execute("INSERT INTO users (email) VALUES (?)", [email])
    db.commit()
