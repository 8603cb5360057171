"""The table of commands. A command that fails prints one line on standard error."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from backend import __version__
from backend.cli import demo, development_server, users
from backend.cli.users import CreateApp
from backend.errors import AppError
from backend.infrastructure.migrations import SchemaMismatch, check_schema, migrate
from backend.infrastructure.private_files import loose_modes
from backend.openapi.document import openapi_document
from backend.operations.metrics_folder import has_metrics
from backend.repositories import transactions
from backend.settings import NOT_TEXT, Settings, SettingsError


def main(create_app: CreateApp, unopened_app: CreateApp) -> None:
    """Run the command that `sys.argv` names, `serve` if none. `unopened_app` makes one that opens no database.

    Exits with 0; with 1 and one line on standard error that says what is wrong; with 2 for a command line that cannot
    be parsed; with 130 when interrupted.
    """
    commands: dict[str, tuple[Callable[[argparse.Namespace, Settings], None], str]] = {
        "serve": (
            lambda _, settings: development_server.serve(create_app, settings),
            "serve for development on BIND (127.0.0.1:8000), database migrated; reloads when code changes",
        ),
        "migrate": (lambda _, settings: _migrate(settings), "bring the database to the newest schema"),
        "create-admin": (
            lambda arguments, settings: users.create_admin(create_app, settings, arguments.email, arguments.existing),
            "make an admin; the password comes from ADMIN_PASSWORD or the terminal",
        ),
        "users": (
            lambda arguments, settings: users.run(create_app, settings, arguments.deactivate, arguments.activate),
            "list the users, or deactivate or activate one",
        ),
        "demo": (lambda _, __: demo.run(), "a tour of the API against a temporary server"),
        "routes": (lambda _, settings: _routes(unopened_app, settings), "list the URL table"),
        "openapi": (lambda _, settings: _openapi(unopened_app, settings), "print the OpenAPI document"),
        "check": (lambda _, settings: _check(create_app, settings), "check settings, schema, file modes, ledger sums"),
    }
    arguments = _parser({name: meaning for name, (_, meaning) in commands.items()}).parse_args()
    with _errors_as_one_line():
        commands[arguments.command or "serve"][0](arguments, Settings.from_environment())
        print(end="", flush=True)


def _parser(meanings: dict[str, str]) -> argparse.ArgumentParser:
    program = "python app.py" if sys.argv[0].endswith("app.py") else "reference-backend"
    parser = argparse.ArgumentParser(prog=program, description="The reference backend.")
    parser.add_argument("--version", action="version", version=f"reference-backend {__version__}")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, meaning in meanings.items():
        command = choices.add_parser(name, help=meaning, description=meaning)
        if name == "create-admin":
            command.add_argument("email", metavar="EMAIL")
            existing = "make the user with this address an admin, and end that user's logins"
            command.add_argument("--existing", action="store_true", help=existing)
        if name == "users":
            one = command.add_mutually_exclusive_group()
            one.add_argument(
                "--deactivate", metavar="EMAIL", type=_text, help="lock the user out, and end that user's logins"
            )
            one.add_argument("--activate", metavar="EMAIL", type=_text, help="let the user log in again")
    return parser


def _text(argument: str) -> str:
    """The argument. Raises ArgumentTypeError for bytes that are not UTF-8, which Python reads as lone surrogates."""
    if NOT_TEXT.search(argument):
        raise argparse.ArgumentTypeError("must be UTF-8 without control characters")
    return argument


@contextmanager
def _errors_as_one_line() -> Iterator[None]:
    """Errors of settings, database, input and operating system end the program; a bug keeps its traceback."""
    try:
        yield
    except AppError as error:
        details = [f"{field} {problem}" for field, problem in error.details.items()]
        sys.exit(" ".join([error.message, "; ".join(details)]).strip())
    except BrokenPipeError:  # as in `python app.py openapi | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
        sys.exit(1)
    except (SettingsError, SchemaMismatch, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells report it


def _migrate(settings: Settings) -> None:
    applied = migrate(settings.database_path)
    check_schema(settings.database_path)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to do: the schema is the newest")


def _routes(unopened_app: CreateApp, settings: Settings) -> None:
    for route in unopened_app(_signing(settings)).routes:
        print(f"{route.method:7}{route.path:45}{route.access.value}")


def _openapi(unopened_app: CreateApp, settings: Settings) -> None:
    print(json.dumps(openapi_document(unopened_app(_signing(settings)).routes), indent=2, ensure_ascii=False))


def _signing(settings: Settings) -> Settings:
    """Settings with a secret: an application that signs nothing need not generate one into a file."""
    return replace(settings, jwt_secrets=settings.jwt_secrets or ("nothing is signed with this one!",))


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
    print("metrics: good" if has_metrics() else "metrics: /metrics answers 404 until `pip install '.[metrics]'`")
    if exposed := [str(mode) for mode in loose if mode.exposes]:
        sys.exit("modes: " + "; ".join(exposed))
