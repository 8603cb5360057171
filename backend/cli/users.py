"""Users, for the operator: make an admin, list users, deactivate and activate one.

The operator acts without a login, so events name no user as their cause. All else works as through the API.
"""

import getpass
import os
import sys
from typing import Any

from backend.cli.engine import Engine
from backend.errors import Conflict
from backend.infrastructure.timestamps import iso_time
from backend.repositories import users
from backend.routes.users import NewUser
from backend.web.constraints import Email, FieldErrors
from backend.web.schemas import read_body

PAGE = 500  # users read at once


def run(engine: Engine, deactivate: str | None, activate: str | None) -> None:
    """The command `users`. Raises NotFound for an unknown e-mail, and Conflict for the last active admin."""
    app = engine.create_app(engine.settings)
    email = deactivate if activate is None else activate
    if email is None:
        list_all(app)
        return
    with engine.write_gate():
        user = app.users.set_active(email.strip(), active=activate is not None)
    print(f"{user.email} is {'active' if user.active else 'deactivated; every login of this user has ended'}")


def list_all(app: Any) -> None:
    """Print a line for each user, oldest first."""
    print(f"{'ID':36}  {'CREATED':24}  {'STATE':11}  {'ROLES':10}  E-MAIL")
    shown, total = 0, 1
    while shown < total:
        found, total = app.users.page(q=None, role=None, sort="createdAt", with_orders=False, limit=PAGE, offset=shown)
        for user in found:
            state, roles = "active" if user.active else "deactivated", ",".join(user.roles)
            print(f"{user.id:36}  {iso_time(user.created_at)}  {state:11}  {roles:10}  {user.email}")
        shown += PAGE


def create_admin(engine: Engine, email: str, existing: bool) -> None:
    """Make an admin. A taken address needs `existing`, for another person may have signed up with it."""
    wrong: FieldErrors = {}
    address = Email().check(email, "EMAIL", wrong) or ""
    if wrong:
        sys.exit(f"EMAIL {wrong['EMAIL']}")
    app = engine.create_app(engine.settings)
    with app.database.snapshot() as tx:
        found = users.credentials_by_email(tx, address)
    if found and not found.user.active:
        sys.exit(f"{address} is deactivated, and stays without the role")
    if existing:
        with engine.write_gate():
            app.users.promote(address)
        print(f"{address} is an admin; the password stays as it was, and every login of this user has ended")
        return
    taken = f"{address} has signed up already; if that is the right person: create-admin --existing {address}"
    if found:
        sys.exit(taken)
    user = read_body(NewUser, {"email": email, "password": _asked_password(), "name": "Administrator"})
    try:
        with engine.write_gate():
            app.users.create_admin(user.email, user.password, user.name)
    except Conflict:  # a sign-up while the password was typed
        sys.exit(taken)
    print(f"{address} is an admin")


def _asked_password() -> str:
    """ADMIN_PASSWORD, or the password typed, without a final line end: a password read from a file often has one."""
    try:
        password = os.environ.get("ADMIN_PASSWORD") or _typed_password()
        password.encode()  # bytes of the environment that are not UTF-8 are read as lone surrogates
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
