"""The command line: `python app.py COMMAND`. Without a command it serves."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from backend import demo
from backend.errors import AppError, Conflict
from backend.infrastructure.keyring import signing_secrets
from backend.infrastructure.migrations import SchemaMismatch, check_schema, migrate, write_gate
from backend.infrastructure.private_files import loose_modes
from backend.openapi.document import openapi_document
from backend.repositories import transactions, users
from backend.routes.users import NewUser
from backend.settings import Settings, SettingsError
from backend.web.constraints import Email, FieldErrors
from backend.web.schemas import read_body

CreateApp = Callable[..., Any]
THINGS_TO_TRY = """Three things to try, in another terminal:
  curl -s {0}/healthz
  curl -s {0}/api/v1/users -H 'Content-Type: application/json' \\
       -d '{{"email": "lin@example.com", "password": "correct horse battery", "name": "Lin"}}'
  curl -s {0}/openapi.json"""


def main(create_app: CreateApp, app_class: CreateApp) -> None:
    """Run what the command line asks for.

    Exits with 0, with 1 and one line on stderr that says what is wrong, with 2 for a command line that cannot be read,
    or with 130 when interrupted.
    """
    commands: dict[str, tuple[Callable[[argparse.Namespace, Settings], None], str]] = {
        "serve": (lambda _, settings: _serve(create_app, settings), "serve on 127.0.0.1:8000, database migrated"),
        "migrate": (lambda _, settings: _migrate(settings), "bring the database to the newest schema"),
        "create-admin": (
            lambda arguments, settings: _create_admin(create_app, settings, arguments.email, arguments.existing),
            "make an admin; the password comes from ADMIN_PASSWORD or the terminal",
        ),
        "demo": (lambda _, __: demo.run(), "a told tour of the API against a throw-away server"),
        "routes": (lambda _, settings: _routes(_unopened(app_class, settings)), "list the URL table"),
        "openapi": (lambda _, settings: _openapi(_unopened(app_class, settings)), "print the OpenAPI document"),
        "check": (
            lambda _, settings: _check(create_app, settings),
            "check settings, schema, file modes, ledger sums",
        ),
    }
    program = "python app.py" if sys.argv[0].endswith("app.py") else "reference-backend"
    parser = argparse.ArgumentParser(prog=program, description="The reference backend.")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, meaning) in commands.items():
        command = choices.add_parser(name, help=meaning, description=meaning)
        if name == "create-admin":
            command.add_argument("email", metavar="EMAIL")
            existing = "give the role to the user who has this address, and end that user's logins"
            command.add_argument("--existing", action="store_true", help=existing)
    arguments = parser.parse_args()
    with _one_line_for_what_is_wrong():
        commands[arguments.command or "serve"][0](arguments, Settings.from_environment())
        sys.stdout.flush()


@contextmanager
def _one_line_for_what_is_wrong() -> Iterator[None]:
    """Errors of settings, database, input and operating system end the program; a bug keeps its traceback."""
    try:
        yield
    except (SettingsError, SchemaMismatch) as error:
        sys.exit(str(error))
    except AppError as error:
        details = [f"{field} {problem}" for field, problem in error.details.items()]
        sys.exit(" ".join([error.message, "; ".join(details)]).strip())
    except BrokenPipeError:  # as in `python app.py openapi | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
        sys.exit(1)
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells say it


def _serve(create_app: CreateApp, settings: Settings) -> None:
    """Development: one worker of the same server as in production."""
    from backend import gunicorn_conf  # not above: it reads the environment, and stops if that is bad

    migrate(settings.database_path)
    check_schema(settings.database_path)
    signing_secrets(settings)
    os.environ["WEB_CONCURRENCY"] = "1"  # gunicorn reads it when it is imported, and dies of a blank one
    from gunicorn.app.base import BaseApplication

    class Development(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            for name, value in vars(gunicorn_conf).items():
                if name in self.cfg.settings and name != "wsgi_app":
                    self.cfg.set(name, value)
            self.cfg.set("workers", 1)
            self.cfg.set("when_ready", _tell_addresses)

        def load(self) -> Any:
            return create_app(replace(settings, development=True))

    sys.argv = sys.argv[:1]  # gunicorn would read the rest
    Development().run()


def _tell_addresses(server: Any) -> None:
    """Once gunicorn listens."""
    addresses = [str(listener) for listener in server.LISTENERS]
    print(f"Serving on {', '.join(addresses)}", flush=True)
    if addresses[0].startswith("http"):
        print(THINGS_TO_TRY.format(addresses[0]), flush=True)


def _migrate(settings: Settings) -> None:
    applied = migrate(settings.database_path)
    check_schema(settings.database_path)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do: the schema is the newest")


def _create_admin(create_app: CreateApp, settings: Settings, email: str, existing: bool) -> None:
    """An address that is taken is refused unless `existing`: the person who signed up with it may be another."""
    wrong: FieldErrors = {}
    address = Email().check(email, "EMAIL", wrong) or ""
    if wrong:
        sys.exit(f"EMAIL {wrong['EMAIL']}")
    app = create_app(settings)
    with app.database.snapshot() as tx:
        found = users.credentials_by_email(tx, address)
    if found and not found.user.active:
        sys.exit(f"{address} is deactivated, and stays without the role")
    if existing:
        with write_gate(settings.database_path):
            app.users.promote(address)
        print(f"{address} is an admin; the password stays as it was, and every login of this user has ended")
        return
    taken = f"{address} has signed up already; if that is the right person: create-admin --existing {address}"
    if found:
        sys.exit(taken)
    user = read_body(NewUser, {"email": email, "password": _asked_password(), "name": "Administrator"})
    try:
        with write_gate(settings.database_path):
            app.users.create_admin(user.email, user.password, user.name)
    except Conflict:  # a sign-up since the look
        sys.exit(taken)
    print(f"{address} is an admin")


def _asked_password() -> str:
    """ADMIN_PASSWORD without a line end behind it, as on a terminal: a file brings one along."""
    try:
        password = os.environ.get("ADMIN_PASSWORD") or _typed_password()
        password.encode()  # other bytes of the environment are read as lone surrogates
    except UnicodeError:
        sys.exit("the password must be UTF-8")
    return password.removesuffix("\n").removesuffix("\r")


def _typed_password() -> str:
    if not sys.stdin.isatty():
        sys.exit("ADMIN_PASSWORD is not set, and there is no terminal to ask on")
    try:
        return getpass.getpass("Password: ")
    except EOFError:
        sys.exit("no password was given")


def _unopened(app_class: CreateApp, settings: Settings) -> Any:
    """An application to look at: it needs no database and makes no secret."""
    shown = replace(settings, jwt_secrets=settings.jwt_secrets or ("nothing is signed with this one!",))
    return app_class(shown)


def _routes(app: Any) -> None:
    for route in app.routes:
        print(f"{route.method:7}{route.path:45}{route.access.value}")


def _openapi(app: Any) -> None:
    print(json.dumps(openapi_document(app.routes), indent=2, ensure_ascii=False))


def _check(create_app: CreateApp, settings: Settings) -> None:
    print("settings: good")
    app = create_app(settings)
    print("schema: good")
    loose = loose_modes(settings.database_path)
    print("\n".join(f"modes: {mode}" for mode in loose) or "modes: good")
    with app.database.snapshot() as tx:
        problems = transactions.unbalanced(tx)
    if problems:
        sys.exit("ledger: " + "; ".join(problems))
    print("ledger: every currency adds up to 0, every balance to its entries")
    if exposed := [str(mode) for mode in loose if mode.exposes]:
        sys.exit("modes: " + "; ".join(exposed))
