"""The table of commands. A command that fails prints one line on standard error."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, NoReturn

from backend import __version__
from backend.cli import backups, demo, development_server, users
from backend.cli.engine import CreateApp, Engine, engine_of
from backend.errors import AppError
from backend.infrastructure.keyring import secret_warnings
from backend.infrastructure.migrations import SchemaMismatch
from backend.infrastructure.private_files import loose_modes
from backend.openapi.document import openapi_document
from backend.operations.metrics_folder import has_metrics
from backend.operations.seal import BackupError
from backend.repositories import transactions
from backend.settings import NOT_TEXT, Settings, SettingsError

CHECK_SECONDS = 86_400.0  # for the whole ledger; a request's time would end the check of a large one


class Command(NamedTuple):
    """What a command does and takes. `failure` is its exit status after an error that is one line."""

    run: Callable[[argparse.Namespace, Engine], None]
    meaning: str
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    failure: int = 1


def main(create_app: CreateApp, unopened_app: CreateApp) -> None:
    """Run the command that `sys.argv` names, `serve` if none. `unopened_app` makes one that opens no database.

    Exits with 0; with the command's `failure` and one line on standard error that says what is wrong; with 2 for a
    command line that cannot be parsed; with 130 when interrupted.
    """
    commands = {
        "serve": Command(
            lambda _, engine: _serve(engine),
            "serve for development on BIND (127.0.0.1:8000), database migrated; reloads when code changes",
        ),
        "migrate": Command(lambda _, engine: _migrate(engine), "bring the database to the newest schema"),
        "create-admin": Command(
            lambda arguments, engine: users.create_admin(engine, arguments.email, arguments.existing),
            "make an admin; the password comes from ADMIN_PASSWORD or the terminal",
            _add_admin,
        ),
        "users": Command(
            lambda arguments, engine: users.run(engine, arguments.deactivate, arguments.activate),
            "list the users, or deactivate or activate one",
            _add_activity,
        ),
        "demo": Command(lambda _, __: demo.run(), "a tour of the API against a temporary server"),
        "routes": Command(lambda _, engine: _routes(unopened_app, engine.settings), "list the URL table"),
        "openapi": Command(lambda _, engine: _openapi(unopened_app, engine.settings), "print the OpenAPI document"),
        "check": Command(lambda _, engine: _check(engine), "check settings, schema, file modes, ledger sums"),
        **_backup_commands(),
        **_lab_commands(),
    }
    arguments = _parser(commands).parse_args()
    command = commands[arguments.command or "serve"]
    with _errors_as_one_line(command.failure):
        command.run(arguments, engine_of(Settings.from_environment(), create_app))
        print(end="", flush=True)


def _backup_commands() -> dict[str, Command]:
    return {
        "backup": Command(
            lambda arguments, engine: backups.run_backup(engine.settings, arguments.file),
            "copy the database to FILE while the service runs; a backup of that name is replaced",
            _add_file,
            failure=2,
        ),
        "verify": Command(
            lambda arguments, _: backups.run_verify(arguments.file),
            "read the whole backup FILE; exit status 1 if the database in it is wrong, 2 if FILE is no whole backup",
            _add_file,
            failure=2,
        ),
        "restore": Command(
            lambda arguments, engine: backups.run_restore(engine.settings, arguments.file),
            "replace the database, which no server may use, by the backup FILE; every login ends",
            _add_file,
            failure=2,
        ),
        "move": Command(
            lambda arguments, engine: backups.run_move(engine.settings, arguments.file),
            "copy the SQLite database FILE, which no server may use, into the empty PostgreSQL of DATABASE_URL",
            _add_file,
            failure=2,
        ),
    }


def _serve(engine: Engine) -> None:
    """Serve for development; with LAB=1, the lab."""
    if find_spec("backend.lab"):
        from backend.lab import commands

        if commands.is_asked_for(os.environ):
            commands.lab(engine.settings)
            return
    development_server.serve(engine)


def _lab_commands() -> dict[str, Command]:
    """Those of the room `lab`; none in a copy without it."""
    if not find_spec("backend.lab"):
        return {}
    from backend.lab import commands

    return {
        "lab": Command(lambda _, engine: commands.lab(engine.settings), commands.LAB, failure=2),
        "trace": Command(
            lambda arguments, engine: commands.trace(engine.settings, arguments),
            commands.TRACE,
            commands.add_trace,
            failure=2,
        ),
    }


def _parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    program = "python app.py" if sys.argv[0].endswith("app.py") else "reference-backend"
    parser = argparse.ArgumentParser(prog=program, description="The reference backend.")
    parser.add_argument("--version", action="version", version=f"reference-backend {__version__}")
    choices = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in commands.items():
        command.add_arguments(choices.add_parser(name, help=command.meaning, description=command.meaning))
    return parser


def _add_admin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("email", metavar="EMAIL")
    existing = "make the user with this address an admin, and end that user's logins"
    parser.add_argument("--existing", action="store_true", help=existing)


def _add_activity(parser: argparse.ArgumentParser) -> None:
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--deactivate", metavar="EMAIL", type=_text, help="lock the user out, and end that user's logins")
    one.add_argument("--activate", metavar="EMAIL", type=_text, help="let the user log in again")


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=lambda argument: Path(_text(argument)))


def _text(argument: str) -> str:
    """The argument. Raises ArgumentTypeError for bytes that are not UTF-8, which Python reads as lone surrogates."""
    if NOT_TEXT.search(argument):
        raise argparse.ArgumentTypeError("must be UTF-8 without control characters")
    return argument


@contextmanager
def _errors_as_one_line(failure: int) -> Iterator[None]:
    """Errors of settings, database, input and operating system end the program; a bug keeps its traceback."""
    try:
        yield
    except AppError as error:
        details = [f"{field} {problem}" for field, problem in error.details.items()]
        _fail(failure, " ".join([error.message, "; ".join(details)]).strip())
    except BrokenPipeError:  # as in `python app.py openapi | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
        sys.exit(1)
    except (SettingsError, SchemaMismatch, BackupError, OSError) as error:
        _fail(failure, str(error))
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells report it


def _fail(status: int, line: str) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(status)


def _migrate(engine: Engine) -> None:
    print("\n".join(f"applied {name}" for name in engine.migrate()) or "nothing to do: the schema is the newest")


def _routes(unopened_app: CreateApp, settings: Settings) -> None:
    for route in unopened_app(_signing(settings)).routes:
        print(f"{route.method:7}{route.path:45}{route.access.value}")


def _openapi(unopened_app: CreateApp, settings: Settings) -> None:
    print(json.dumps(openapi_document(unopened_app(_signing(settings)).routes), indent=2, ensure_ascii=False))


def _signing(settings: Settings) -> Settings:
    """Settings with a secret: an application that signs nothing need not generate one into a file."""
    return replace(settings, jwt_secrets=settings.jwt_secrets or ("nothing is signed with this one!",))


def _check(engine: Engine) -> None:
    print("settings: good")
    print(end="".join(f"secrets: {warning}\n" for warning in secret_warnings(engine.settings)))
    app = engine.create_app(replace(engine.settings, busy_timeout_seconds=CHECK_SECONDS))
    print("schema: good")
    loose = loose_modes(engine.settings.database_path)
    print("\n".join(f"modes: {mode}" for mode in loose) or "modes: good")
    with app.database.snapshot() as tx:
        problems = transactions.unbalanced(tx)
    if problems:
        sys.exit("ledger: " + "; ".join(problems))
    print("ledger: every currency adds up to 0, every balance to its entries")
    print("metrics: good" if has_metrics() else "metrics: /metrics answers 404 until `pip install '.[metrics]'`")
    if exposed := [str(mode) for mode in loose if mode.exposes]:
        sys.exit("modes: " + "; ".join(exposed))
