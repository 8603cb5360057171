"""The commands `lab`, which is also `serve` with LAB=1, and `trace`.

`lab` serves the lab on a database of its own, beside the one of the settings, which it does not touch. The development
server runs it, so a change of the code shows in the next request.

`trace` sends one request to the application in this process and prints what happened as a tree. The request is a real
one on the database of the settings: what it writes stays. With `--as` it carries a token of a session of its own, which
ends with the command.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from werkzeug.test import Client

from backend.cli import development_server
from backend.cli.engine import engine_of
from backend.errors import BadRequest
from backend.infrastructure.migrations import check_database, write_gate
from backend.lab.logins import PasswordlessLogins
from backend.lab.report import report, tree
from backend.lab.tracing import Tracing
from backend.lab.wiring import create_app, traced_app
from backend.settings import Settings, SettingsError

TRACE = "send one request and print what it does as a tree: layers, caches, statements with their plans"
LAB = "serve the lab on BIND, which must be on loopback, with a database of its own"

LOOPBACK = re.compile(r"(127\.0\.0\.1|\[::1\]):[0-9]+|fd://[0-9]+")


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether `serve` is to serve the lab. Raises SettingsError for a value of LAB other than 1 and 0."""
    value = environ.get("LAB", "").strip()
    if value not in ("", "0", "1"):
        raise SettingsError(f"LAB was {value!r}; it must be 1 or 0")
    return value == "1"


def lab(settings: Settings) -> None:
    """Serve the lab until SIGINT or SIGTERM. Raises SettingsError for an address that is not of loopback."""
    [bind, *others] = settings.bind
    if others or not LOOPBACK.fullmatch(bind):
        raise SettingsError(
            f"BIND was {','.join(settings.bind)!r}; for the lab it must be 127.0.0.1:PORT or [::1]:PORT"
        )
    own = settings.database_path.parent / "lab" / "app.db"
    if not bind.startswith("fd://"):  # which is a restart after the code has changed
        print(f"The lab is at http://{bind}/lab, with the database {own}", flush=True)
    # No mail and no webhook leaves the lab. The times are long, so that a slow machine shows the same storms.
    settings = replace(settings, database_path=own, postgres_url=None, smtp_url=None, webhook_urls=())
    settings = replace(settings, refresh_grace_seconds=60, busy_timeout_seconds=30.0, cache_ttl_seconds=3600.0)
    development_server.serve(engine_of(settings, create_app))


def add_trace(parser: ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("path", metavar="PATH", help="such as /api/v1/products?limit=2")
    parser.add_argument("--as", metavar="EMAIL", dest="email", help="with a token of this user")
    parser.add_argument("--body", metavar="JSON")


def trace(settings: Settings, request: Namespace) -> None:
    """Print the tree and the status. Raises BadRequest for no request, NotFound for an unknown e-mail."""
    method, path, email, body = request.method, request.path, request.email, request.body
    _check(method, path, email, body)
    if settings.postgres_url:
        raise SettingsError("trace works on SQLite alone, and DATABASE_URL is of PostgreSQL")
    check_database(settings.database_path)
    tracing = Tracing()
    with ExitStack() as ending:
        ending.enter_context(write_gate(settings.database_path))  # a server may be running on the database
        headers = {}
        if email is not None:
            logins = PasswordlessLogins(settings)
            ending.callback(logins.close)
            login = logins.log_in(email)
            ending.callback(logins.log_out, login)
            headers = login.headers
        app = traced_app(settings, tracing)
        ending.callback(app.close)
        kind = None if body is None else "application/json"
        client = Client(app, use_cookies=False)
        answer = client.open(
            path, method=method.upper(), headers=headers, data=body, content_type=kind,
            environ_overrides={"REMOTE_ADDR": "127.0.0.1"},
        )  # fmt: skip
        shown = report(tracing.traces[answer.headers["X-Request-ID"]], settings.database_path)
        print("\n".join(tree(shown)))
        print(f"\n{answer.status}")
        if answer.status_code >= 400 and answer.is_json and answer.data:  # HEAD has no body
            error = (answer.json or {})["error"]
            details = [f"{field}: {problem}" for field, problem in error.get("details", {}).items()]
            print("\n".join([f"{error['code']}: {error['message']}", *details]))


def _check(method: str, path: str, *texts: str | None) -> None:
    if not re.fullmatch("[A-Za-z]{1,16}", method):
        raise BadRequest("METHOD must be a word, such as GET.")
    if not path.startswith("/") or re.search(r"[^!-~]|#", path):
        raise BadRequest("PATH must start with / and be percent-encoded.")
    try:
        "".join(text or "" for text in texts).encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, which Python reads as lone surrogates
        raise BadRequest("EMAIL and JSON must be UTF-8.") from None
