"""Checks any server over HTTP against this project's contract, section by section.

    python -m tests.conformance http://127.0.0.1:8000 --admin root@example.com

Needs nothing but Python's standard library. It creates users, accounts, products and orders: run it on a database that
may be thrown away. The admin's password comes from ADMIN_PASSWORD, or is asked for on a terminal. With the default rate
limits a run waits for minutes; RATE_LIMIT_AUTH=off and RATE_LIMIT_DEFAULT=off in the server's environment avoid that,
and leave the section `limits` out. Exit status: 0 if every promise holds, 1 if one is broken, 2 for a usage error and
for a server that cannot be reached.
"""

import argparse
import contextlib
import getpass
import os
import sys
import time
from http.client import HTTPException
from typing import NoReturn
from urllib.parse import urlsplit

from tests.conformance import report
from tests.conformance.checks import Result, results
from tests.conformance.client import Client

SECTIONS = (
    "conventions", "bodies", "validation", "lists", "authentication", "sessions", "passwords", "users", "products",
    "accounts", "orders", "idempotency", "service", "cross_origin", "access", "limits",
)  # fmt: skip


def main() -> int:
    arguments = _arguments()
    api = Client(arguments.url, arguments.origin, _wait)
    found: list[Result] = []
    try:
        _log_in(api, arguments.admin)
        for section in arguments.section or SECTIONS:
            found += (of_section := results(api, section))
            if not arguments.json:
                print(report.section_text(of_section, sys.stdout.isatty()), flush=True)
    except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: of a host or path that no request can have
        _exit(f"{arguments.url} cannot be reached: {error or type(error).__name__}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # 128 + SIGINT, as shells report it
    print(report.as_json(arguments.url, found) if arguments.json else report.score_text(found))
    return 1 if report.score(found)["broken"] else 0


def _arguments() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        "python -m tests.conformance", usage="%(prog)s URL [options]", description=about, epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("url", metavar="URL", type=_url, help="where the server is, such as http://127.0.0.1:8000")
    parser.add_argument("--admin", metavar="EMAIL", help="an admin; without one, some checks are left out")
    parser.add_argument("--origin", default="", help="an origin that the server's CORS settings allow")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="only this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def _url(text: str) -> str:
    with contextlib.suppress(ValueError):  # of a port that is none
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return text
    raise argparse.ArgumentTypeError(f"{text!r} is no URL such as http://127.0.0.1:8000")


def _log_in(api: Client, admin: str | None) -> None:
    """Exit with one line and status 2 if the admin cannot log in. Raises OSError without a server."""
    api.get("//healthz")
    if not admin:
        return
    try:
        api.log_in_admin(admin, os.environ.get("ADMIN_PASSWORD") or _asked(admin))
    except (LookupError, ValueError):
        _exit(f"{admin} cannot log in: is it the address and the password of an admin?")


def _asked(admin: str) -> str:
    if not sys.stdin.isatty():
        _exit("set ADMIN_PASSWORD to the admin's password")
    return getpass.getpass(f"Password of {admin}: ")


def _exit(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(2)


def _wait(seconds: float) -> None:
    print(f"waiting {seconds:.0f} s for a rate limit", file=sys.stderr)
    time.sleep(seconds)


if __name__ == "__main__":
    sys.exit(main())
