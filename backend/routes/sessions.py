"""Sessions: `/api/v1/auth/login`, `/refresh`, `/logout`, `/sessions`."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain import Session, TokenPair
from backend.errors import Unauthorized
from backend.routes.passwords import GivenPassword
from backend.services.logins import Logins
from backend.web.constraints import EmailAddress, Secret
from backend.web.handler import responds
from backend.web.rate_limits import RateLimits
from backend.web.request import Request


@dataclass(frozen=True)
class Credentials:
    email: EmailAddress
    password: GivenPassword


@dataclass(frozen=True)
class RefreshToken:
    refresh_token: Secret


class SessionRoutes:
    def __init__(self, logins: Logins, limits: RateLimits) -> None:
        self._logins = logins
        self._limits = limits

    def find(self, request: Request, session_id: str) -> Session:
        return self._logins.session(request.user, session_id)

    @responds(200, Unauthorized)
    def log_in(self, request: Request, body: Credentials) -> TokenPair:
        """Start a session."""
        wrong = self._limits.wrong_passwords(request, body.email)
        return self._logins.log_in(body.email, body.password, request.agent, request.client, wrong)

    @responds(200, Unauthorized)
    def refresh_tokens(self, request: Request, body: RefreshToken) -> TokenPair:
        """Exchange a refresh token for its successor and a new access token."""
        return self._logins.refresh(body.refresh_token)

    @responds(204)
    def log_out(self, request: Request, body: RefreshToken) -> None:
        """End the session of a refresh token."""
        self._logins.log_out(body.refresh_token)

    @responds(200)
    def list_sessions(self, request: Request) -> Sequence[Session]:
        """The caller's live sessions, at most 100, newest first; `lastUsedAt` is rounded down to the hour."""
        return self._logins.sessions(request.user)

    @responds(204)
    def end_session(self, request: Request, resource: Session) -> None:
        """End one of the caller's sessions."""
        self._logins.end_session(request.user, resource.id)

    @responds(204)
    def end_all_sessions(self, request: Request) -> None:
        """End all of the caller's sessions."""
        self._logins.end_all_sessions(request.user)
