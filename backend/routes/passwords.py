"""Passwords: `/api/v1/auth/password`, `/auth/password-reset`; and the rule for new passwords."""

from dataclasses import dataclass
from typing import Annotated

from backend.errors import Unauthorized
from backend.services.credentials import UserCredentials
from backend.services.password_rules import weakness
from backend.web.constraints import EmailAddress, FieldErrors, Schema, Secret, Text
from backend.web.handler import responds
from backend.web.rate_limits import RateLimits
from backend.web.request import Request


@dataclass(frozen=True)
class NewPassword:
    """The rule for a new password."""

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        text = Text(8, 256, verbatim=True).check(value, path, wrong)
        error = weakness(text) if text is not None else None
        if error:
            wrong[path] = error
        return text

    def schema(self) -> Schema:
        description = "Not blank, not common; not the e-mail address, its local part, the name or this service's name."
        text = Text(8, 256, verbatim=True, title="NewPassword", example="a quiet harbour")
        return {**text.schema(), "format": "password", "description": description}


ChosenPassword = Annotated[str, NewPassword()]
GivenPassword = Annotated[str, Text(1, 256, verbatim=True, example="a quiet harbour")]


@dataclass(frozen=True)
class PasswordChange:
    current_password: GivenPassword
    new_password: ChosenPassword


@dataclass(frozen=True)
class ResetRequest:
    email: EmailAddress


@dataclass(frozen=True)
class ResetConfirmation:
    token: Secret
    new_password: ChosenPassword


@dataclass(frozen=True)
class Nothing:
    """`{}`: the answer to a reset request, whether or not the address is known."""


class PasswordRoutes:
    def __init__(self, credentials: UserCredentials, limits: RateLimits) -> None:
        self._credentials = credentials
        self._limits = limits

    @responds(204, Unauthorized)
    def change_password(self, request: Request, body: PasswordChange) -> None:
        """Change the caller's password; every other session ends."""
        wrong = self._limits.wrong_passwords(request, request.user.user.email)
        self._credentials.change(request.user, body.current_password, body.new_password, wrong)

    @responds(202)
    def request_password_reset(self, request: Request, body: ResetRequest) -> Nothing:
        """Ask for a reset token by mail."""
        self._limits.count_reset(request, body.email)
        self._credentials.request_reset(body.email)
        return Nothing()

    @responds(204)
    def confirm_password_reset(self, request: Request, body: ResetConfirmation) -> None:
        """Set a new password with a reset token; every session ends."""
        self._credentials.confirm_reset(body.token, body.new_password)
