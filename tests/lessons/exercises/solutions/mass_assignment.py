"""A list of what is allowed. It also keeps the client's text out of the SQL."""

import sqlite3

EDITABLE = {"name"}


class UnknownField(Exception):
    """The client gets a 422."""


def update_user(db: sqlite3.Connection, user_id: int, body: dict) -> None:
    """`body` has at least one field."""
    if unknown := body.keys() - EDITABLE:
        raise UnknownField(", ".join(sorted(unknown)))
    columns = ", ".join(f"{name} = ?" for name in body)
    db.execute(f"UPDATE users SET {columns} WHERE id = ?", [*body.values(), user_id])
