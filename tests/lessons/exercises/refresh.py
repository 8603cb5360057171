"""Refresh: a token has one successor, and a token that is used again ends all sessions of its user.

Task: Of ten requests with one token, one gets a successor, the others raise `Refused`. A token that was used before
raises `Refused` and revokes all tokens of its user; an unknown one raises `Refused` and revokes none.
Invariant: At most one successor for each token, in any number of processes. A revocation stays.
Hint: One UPDATE can look and claim (`AND used = 0`), and `rowcount` says which request won. An exception that leaves
`with db` rolls back everything in the block: what should stay?
Run: make exercise L=refresh
"""

import secrets
import sqlite3


class Refused(Exception):
    """The client gets a 401."""


def refresh(db: sqlite3.Connection, token: str) -> str:
    row = db.execute("SELECT user, used, revoked FROM tokens WHERE token = ?", [token]).fetchone()
    if row is None or row[2]:
        raise Refused
    user, used, _ = row
    with db:  # commits, or rolls back if the block raises
        if used:
            db.execute("UPDATE tokens SET revoked = 1 WHERE user = ?", [user])
            raise Refused
        successor = secrets.token_hex()
        db.execute("UPDATE tokens SET used = 1 WHERE token = ?", [token])
        db.execute("INSERT INTO tokens VALUES (?, ?, 0, 0)", [successor, user])
    return successor
