"""The command line: `python app.py COMMAND`. Without a command it serves."""

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backend import demo
from backend.errors import AppError
from backend.infrastructure.logs import LogSink
from backend.infrastructure.migrations import SchemaMismatch, check_schema, migrate
from backend.infrastructure.rate_limiter import RateLimiter
from backend.repositories import transactions, users
from backend.routes.users import NewUser
from backend.settings import Settings, SettingsError
from backend.web.fields import Email, Wrong
from backend.web.openapi import openapi_document
from backend.web.shapes import read_body

CreateApp = Callable[..., Any]


def main(create_app: CreateApp, app_class: CreateApp) -> None:
    """Run what the command line asks for. Exits 0, or with 1 and one line on stderr that says what is wrong."""
    commands: dict[str, tuple[Callable[[argparse.Namespace, Settings], None], str]] = {
        "serve": (lambda _, settings: _serve(create_app, settings), "serve on 127.0.0.1:8000, database migrated"),
        "migrate": (lambda _, settings: _migrate(settings), "bring the database to the newest schema"),
        "create-admin": (
            lambda arguments, settings: _create_admin(create_app(settings), arguments.email),
            "make an admin; the password comes from ADMIN_PASSWORD or the terminal",
        ),
        "demo": (lambda _, __: demo.run(), "a told tour of the API against a throw-away server"),
        "routes": (lambda _, settings: _routes(_unopened(app_class, settings)), "list the URL table"),
        "openapi": (lambda _, settings: _openapi(_unopened(app_class, settings)), "print the OpenAPI document"),
        "check": (lambda _, settings: _check(create_app, settings), "check settings, schema and ledger sums"),
    }
    parser = argparse.ArgumentParser(prog="python app.py", description="The reference backend.")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, meaning) in commands.items():
        command = choices.add_parser(name, help=meaning, description=meaning)
        if name == "create-admin":
            command.add_argument("email", metavar="EMAIL")
    arguments = parser.parse_args()
    try:
        commands[arguments.command or "serve"][0](arguments, Settings.from_environment())
    except (SettingsError, SchemaMismatch) as error:
        sys.exit(str(error))
    except AppError as error:
        sys.exit(f"{error.message} {error.details or ''}".strip())


def _serve(create_app: CreateApp, settings: Settings) -> None:
    """Development: one worker of the same server as in production."""
    from backend import gunicorn_conf  # not above: it reads the environment, and stops if that is bad

    migrate(settings.database_path)
    check_schema(settings.database_path)
    from gunicorn.app.base import BaseApplication  # only now: it reads WEB_CONCURRENCY too, and dies of a bad one

    class Development(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            for name, value in vars(gunicorn_conf).items():
                if name in self.cfg.settings and name != "wsgi_app":
                    self.cfg.set(name, value)
            self.cfg.set("workers", 1)

        def load(self) -> Any:
            return create_app(replace(settings, development=True))

    print(f"Serving on http://{settings.bind[0]}", flush=True)
    sys.argv = sys.argv[:1]  # gunicorn would read the rest
    Development().run()


def _migrate(settings: Settings) -> None:
    applied = migrate(settings.database_path)
    check_schema(settings.database_path)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do: the schema is the newest")


def _create_admin(app: Any, email: str) -> None:
    wrong: Wrong = {}
    address = Email().check(email, "EMAIL", wrong)
    if wrong:
        sys.exit(f"EMAIL {wrong['EMAIL']}")
    with app.database.snapshot() as tx:
        found = users.credentials_by_email(tx, address or "")
    if found is not None:
        user_id = found.user.id
    else:
        body = {"email": email, "password": _asked_password(), "name": "Administrator"}
        user = read_body(NewUser, body)
        user_id = app.users.sign_up(user.email, user.password, user.name).id
    with app.database.transaction() as tx:
        app.users.grant_admin(tx, user_id)
    print(f"{address} is an admin")


def _asked_password() -> str:
    given = os.environ.get("ADMIN_PASSWORD")
    if given:
        return given
    if not sys.stdin.isatty():
        sys.exit("ADMIN_PASSWORD is not set, and there is no terminal to ask on")
    return getpass.getpass("Password: ")


def _unopened(app_class: CreateApp, settings: Settings) -> Any:
    """An application to look at: it needs no database and makes no secret."""
    shown = replace(settings, jwt_secrets=settings.jwt_secrets or ("nothing is signed with this one!",))
    return app_class(shown, RateLimiter(slots=8), time.time, LogSink(2))


def _routes(app: Any) -> None:
    for route in app.routes:
        print(f"{route.method:7}{route.path:45}{route.access.value}")


def _openapi(app: Any) -> None:
    print(json.dumps(openapi_document(app.routes), indent=2, ensure_ascii=False))


def _check(create_app: CreateApp, settings: Settings) -> None:
    print("settings: good")
    app = create_app(settings)
    print("schema: good")
    with app.database.snapshot() as tx:
        problems = transactions.unbalanced(tx)
    if problems:
        sys.exit("ledger: " + "; ".join(problems))
    print("ledger: every currency adds up to 0, every balance to its entries")
