"""One UPDATE claims the token. The error is raised after the transaction that revokes."""

import secrets
import sqlite3

CLAIM = "UPDATE tokens SET used = 1 WHERE token = ? AND used = 0 AND revoked = 0 RETURNING user"
REVOKE = "UPDATE tokens SET revoked = 1 WHERE user = (SELECT user FROM tokens WHERE token = ?)"


class Refused(Exception):
    """The client gets a 401."""


def refresh(db: sqlite3.Connection, token: str) -> str:
    with db:
        claimed = db.execute(CLAIM, [token]).fetchall()
        if claimed:
            successor = secrets.token_hex()
            db.execute("INSERT INTO tokens VALUES (?, ?, 0, 0)", [successor, *claimed[0]])
            return successor
        db.execute(REVOKE, [token])
    raise Refused
