"""The real application, in whose workers every bcrypt run leaves a mark where it begins and where it ends."""

import os
from collections.abc import Callable
from typing import Any

import bcrypt

from app import App
from app import create_app as really_create_app


def create_app() -> App:
    """`BCRYPT_MARKS` names the file that all workers append `+` and `-` to; O_APPEND keeps their order."""
    marks = os.open(os.environ["BCRYPT_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def marked(run: Callable[..., Any]) -> Callable[..., Any]:
        def marking(*arguments: Any) -> Any:
            os.write(marks, b"+")
            try:
                return run(*arguments)
            finally:
                os.write(marks, b"-")

        return marking

    bcrypt.checkpw, bcrypt.hashpw = marked(bcrypt.checkpw), marked(bcrypt.hashpw)
    return really_create_app()
