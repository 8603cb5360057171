"""The real application; every bcrypt run in its workers leaves a mark at its begin and its end.

Logins wait for their turn as long as a test needs, however busy the machine is.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt

from app import App
from backend.production import wiring
from backend.production.passwords import SharedPasswords


def create_app() -> App:
    """All workers append `+` and `-` to the file `BCRYPT_MARKS`; O_APPEND keeps their order.

    While the file `BCRYPT_MARKS` + `.hold` exists, no run ends.
    """
    name = os.environ["BCRYPT_MARKS"]
    marks = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    hold = Path(f"{name}.hold")

    def marked(run: Callable[..., Any]) -> Callable[..., Any]:
        def marking(*arguments: Any) -> Any:
            os.write(marks, b"+")
            try:
                while hold.exists():
                    time.sleep(0.01)
                return run(*arguments)
            finally:
                os.write(marks, b"-")

        return marking

    bcrypt.checkpw, bcrypt.hashpw = marked(bcrypt.checkpw), marked(bcrypt.hashpw)
    wiring.SharedPasswords = partial(SharedPasswords, timeout=60)
    return wiring.create_app()
