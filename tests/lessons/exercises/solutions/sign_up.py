"""The constraint decides. The refused INSERT becomes an error that the client understands."""

import sqlite3

SCHEMA = "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE)"


class EmailTaken(Exception):
    """The client gets a 409."""


def sign_up(db: sqlite3.Connection, email: str) -> None:
    try:
        db.execute("INSERT INTO users (email) VALUES (?)", [email])
    except sqlite3.IntegrityError:
        raise EmailTaken(email) from None
    db.commit()
