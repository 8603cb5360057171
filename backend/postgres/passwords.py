"""Passwords whose threads hold no connection while they wait.

A worker has more than 64 threads for routes that hash passwords, and most of them wait for a core. Forty logins at once
held 70 connections, where a server usually takes 100 from all hosts. Each of these threads therefore closes its
connection at the end of each block: a new one takes 3 ms, a run of bcrypt 250.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backend.postgres.database import PostgresDatabase
from backend.production.passwords import SharedPasswords


class BriefPasswords(SharedPasswords):
    """SharedPasswords for threads that serve no other requests: they keep no connection."""

    def __init__(self, database: PostgresDatabase, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._database = database

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._database.keep_no_connection()
        with super().turn():
            yield
