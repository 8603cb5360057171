"""Users and tokens without passwords, for an operator with access to the database file and its secret.

A login here takes the same path as one over HTTP (session row, events, token), except that no password is asked for.
"""

import secrets
from dataclasses import dataclass, replace

from app import App, core_tools
from backend.domain import TokenPair
from backend.errors import NotFound
from backend.infrastructure.migrations import write_gate
from backend.infrastructure.passwords import FailureCount, Passwords
from backend.repositories import users
from backend.settings import Settings


class NoPasswords(Passwords):
    """Every login succeeds, and a new user gets a hash that no password matches."""

    def __init__(self) -> None:
        super().__init__(rounds=4)

    def hash(self, password: str) -> str:
        return "no password"

    def renewed(self, password: str, hashed: str | None, wrong: FailureCount | None = None) -> str | None:
        return hashed


@dataclass(frozen=True)
class Login:
    user_id: str
    tokens: TokenPair

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.access_token}"}


class PasswordlessLogins:
    """The application on a database, with logins that ask for no password. Starts no threads. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.database_path
        self._app = App(settings, replace(core_tools(settings), passwords=NoPasswords()))
        self.database = self._app.database

    def log_in(self, email: str) -> Login:
        """A new session of the user. Raises NotFound unless there is such an active user."""
        with self._app.database.read() as tx:
            found = users.credentials_by_email(tx, email)
        if found is None or not found.user.active:
            raise NotFound(f"There is no active user {email}.")
        return Login(found.user.id, self._app.logins.log_in(email, "", "lab", ""))

    def new_user(self, admin: bool = False) -> Login:
        """A new user with a login. The address is random."""
        email = f"{secrets.token_hex(8)}@lab.example"
        with write_gate(self._path):  # a server of production may be running on the database
            (self._app.users.create_admin if admin else self._app.users.sign_up)(email, "", "A user of the lab")
            return self.log_in(email)

    def log_out(self, login: Login) -> None:
        self._app.logins.log_out(login.tokens.refresh_token)

    def close(self) -> None:
        self._app.close()
