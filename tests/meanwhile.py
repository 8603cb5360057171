"""Races that are forced: an action runs during bcrypt, before a request has the write lock, or before its COMMIT."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bcrypt
import pytest

from backend.infrastructure.database import Database, Tx


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], during: str = "checkpw") -> None:
    """Do `action` once, at the end of the next password check (or `hashpw`), before its result is used."""
    run = getattr(bcrypt, during)

    def interrupted(password: bytes, salt: bytes) -> Any:
        result = run(password, salt)
        monkeypatch.setattr(bcrypt, during, run)
        action()
        return result

    monkeypatch.setattr(bcrypt, during, interrupted)


def before_the_write(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Do `action` once, when this thread next asks for the write lock and before it has the lock."""
    transaction, thread = Database.transaction, threading.get_ident()

    def interrupted(database: Database, **options: Any) -> Any:
        if threading.get_ident() == thread:
            monkeypatch.setattr(Database, "transaction", transaction)
            action()
        return transaction(database, **options)

    monkeypatch.setattr(Database, "transaction", interrupted)


def before_the_commit(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Do `action` once, when this thread's next transaction has done its work and before it commits."""
    transaction, thread = Database.transaction, threading.get_ident()

    @contextmanager
    def interrupted(database: Database, **options: Any) -> Iterator[Tx]:
        with transaction(database, **options) as tx:
            yield tx
            if threading.get_ident() == thread:
                monkeypatch.setattr(Database, "transaction", transaction)
                action()

    monkeypatch.setattr(Database, "transaction", interrupted)
