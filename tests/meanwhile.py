"""Races that are forced: something happens while bcrypt runs, that is between a service's two looks at the database."""

from collections.abc import Callable
from typing import Any

import bcrypt
import pytest


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], during: str = "checkpw") -> None:
    """Do `action` once, at the end of the next password check (or `hashpw`), before its result is used."""
    run = getattr(bcrypt, during)

    def interrupted(password: bytes, salt: bytes) -> Any:
        result = run(password, salt)
        monkeypatch.setattr(bcrypt, during, run)
        action()
        return result

    monkeypatch.setattr(bcrypt, during, interrupted)
