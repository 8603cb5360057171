"""Logins: a password opens a session, access tokens identify its user, refresh tokens renew it (`rotation.py`)."""

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress

from backend.domain import Caller, Session, Timestamp, TokenPair
from backend.errors import NotFound, Unauthorized
from backend.infrastructure.cache import Cache
from backend.infrastructure.database import Database, Tx
from backend.infrastructure.ids import new_id
from backend.infrastructure.passwords import FailureCount, Passwords
from backend.infrastructure.tokens import Tokens
from backend.repositories import sessions, users
from backend.repositories.sessions import Identity, Login
from backend.repositories.users import Credentials
from backend.services.events import EventBus
from backend.services.rights import authorised
from backend.services.rotation import Rotation

USER_AGENT_KEPT = 200  # characters
MAX_LOGINS = 100  # live sessions of a user
KNOWN_FOR = 30 * 86_400_000  # milliseconds after a login

log = logging.getLogger(__name__)


class Logins:
    """Thread-safe."""

    def __init__(
        self, database: Database, identities: Cache, passwords: Passwords, tokens: Tokens, rotation: Rotation,
        events: EventBus, access_seconds: int,
    ) -> None:  # fmt: skip
        self._database = database
        self._identities = identities  # follows the changes of the database, or stores nothing
        self._passwords = passwords
        self._tokens = tokens
        self._rotation = rotation
        self._events = events
        self._access_seconds = access_seconds

    def log_in(
        self, email: str, password: str, user_agent: str, ip: str, wrong: FailureCount | None = None
    ) -> TokenPair:
        """Open a session. If MAX_LOGINS are live, the user's oldest ends.

        Raises Unauthorized `credentials` for a wrong password, and with the same content after the same time for an
        unknown e-mail (`wrong` counts both); RateLimited if that count is full; Unavailable if too many passwords wait.
        """
        with self._database.read() as tx:
            found = users.credentials_by_email(tx, email)
        hashed = found.password_hash if found and found.user.active else None
        renewed = self._passwords.renewed(password, hashed, wrong)
        if found is None or renewed is None:
            raise _login_failed(found, ip)
        with self._database.transaction() as tx:
            now = users.credentials_by_id(tx, found.user.id)
            if now is None or not now.user.active or now.token_version != found.token_version:
                raise _login_failed(found, ip)  # deactivated, or the password was changed, while bcrypt ran
            if renewed != found.password_hash:
                users.set_password(tx, found.user.id, renewed)
            return self._open(tx, now, user_agent[:USER_AGENT_KEPT], ip)

    def is_known(self, email: str, ip: str) -> bool:
        """Whether the user with this e-mail has logged in from the client at `ip` within 30 days.

        Takes as long for an unknown e-mail.
        """
        with self._database.read() as tx:
            return sessions.has_login_from(tx, email, ip, tx.now - KNOWN_FOR)

    def refresh(self, token: str) -> TokenPair:
        """Rotate the refresh token. Raises Unauthorized.

        A reused token revokes its family in a transaction that commits before this raises. A repetition within the
        grace may be a thief's, so it publishes an event.
        """
        claims = self._tokens.verify("refresh", token)
        with self._database.transaction() as tx:
            identity = sessions.identity(tx, claims["sid"], claims["sub"])  # first, because its lock is the family's
            used = self._rotation.issued(tx, token)
            if identity is None or not _is_live(identity, tx.now):
                raise Unauthorized("revoked")
            successor = self._rotation.rotate(tx, identity.login, used, token)
            session = ("session", identity.login.id)
            if successor is None:
                sessions.end(tx, identity.login.id)
                self._events.publish(tx, "session.reuse_detected", session, identity.user.id)
            elif used.used_at is not None:
                self._events.publish(tx, "session.refresh_repeated", session, identity.user.id)
        if successor is None:  # not inside the transaction, which would roll the revocation back
            raise Unauthorized("revoked")
        return self._pair(identity, successor, tx.now)

    def log_out(self, token: str) -> None:
        """End the login of a refresh token, used or not. An invalid or expired token ends nothing. Idempotent."""
        with suppress(Unauthorized):
            claims = self._tokens.verify("refresh", token)
            with self._database.transaction() as tx:
                self._end(tx, self._rotation.issued(tx, token).session_id, claims["sub"])

    def identify(self, access_token: str) -> Caller:
        """The caller with this access token. Raises Unauthorized.

        An ended login, a deactivation and a change of roles take effect at once, on every worker.
        """
        claims = self._tokens.verify("access", access_token)
        session_id, user_id = claims["sid"], claims["sub"]
        identity = self._identities.get_or_load(
            ("identity", session_id, user_id),
            lambda tx: sessions.identity(tx, session_id, user_id),
            tags=(f"sessions:{session_id}", f"users:{user_id}"),
        )
        if identity is None or not _is_live(identity, self._database.now()):
            raise Unauthorized("revoked")
        if not identity.login.token_version <= claims["ver"] <= identity.token_version:
            raise Unauthorized("revoked")
        return Caller(identity.user, session_id)

    def sessions(self, caller: Caller) -> Sequence[Session]:
        """The caller's live sessions, newest first."""
        with self._database.read() as tx:
            return sessions.live_of(tx, caller.user.id, caller.session_id, MAX_LOGINS)

    def session(self, caller: Caller, session_id: str) -> Session:
        """A live session of the caller. Raises NotFound."""
        mine = {session.id: session for session in self.sessions(caller)}
        if session_id not in mine:
            raise NotFound
        return mine[session_id]

    def end_session(self, caller: Caller, session_id: str) -> None:
        """Raises NotFound unless it is a live session of the caller."""
        with authorised(self._database, caller) as (tx, caller):
            login = sessions.by_id(tx, session_id)
            if login is None or login.user_id != caller.user.id or not self._end(tx, session_id, caller.user.id):
                raise NotFound

    def end_all_sessions(self, caller: Caller) -> None:
        with authorised(self._database, caller) as (tx, caller):
            sessions.end_all(tx, caller.user.id)
            self._events.publish(tx, "session.all_ended", ("user", caller.user.id), caller.user.id)

    def _open(self, tx: Tx, credentials: Credentials, user_agent: str, ip: str) -> TokenPair:
        user, token_version = credentials.user, credentials.token_version
        live = sessions.live_ids(tx, user.id, 2 * MAX_LOGINS)
        for surplus in live[: -(MAX_LOGINS - 1)]:
            self._end(tx, surplus, user.id)
        expires_at = Timestamp(self._rotation.expiry(created_at=tx.now, now=tx.now) * 1000)
        login = Login(new_id(), user.id, token_version, tx.now, expires_at, None)
        first = self._rotation.first(login)
        sessions.insert(tx, login, user_agent, ip)
        sessions.insert_token(tx, first.kept)
        self._events.publish(tx, "session.created", ("session", login.id), user.id)
        return self._pair(Identity(login, user, token_version), first.token, tx.now)

    def _end(self, tx: Tx, session_id: str, user_id: str) -> bool:
        ended = sessions.end(tx, session_id)
        if ended:
            self._events.publish(tx, "session.ended", ("session", session_id), user_id)
        return ended

    def _pair(self, identity: Identity, refresh_token: str, now: Timestamp) -> TokenPair:
        issued_at = now // 1000
        user = identity.user
        claims = {
            "sub": user.id, "email": user.email, "roles": list(user.roles), "ver": identity.token_version,
            "sid": identity.login.id, "iat": issued_at, "exp": issued_at + self._access_seconds,
            "jti": secrets.token_hex(16),
        }  # fmt: skip
        return TokenPair(self._tokens.issue("access", claims), refresh_token, "Bearer", self._access_seconds)


def _login_failed(found: Credentials | None, ip: str) -> Unauthorized:
    """The error to raise. Logs the user's id, not the e-mail as typed: that may be a password in the wrong field."""
    log.warning("failed login: user %s, client %s", found.user.id if found else "unknown", ip or "unknown")
    return Unauthorized("credentials")


def _is_live(identity: Identity, now: int) -> bool:
    return identity.user.active and identity.login.ended_at is None and identity.login.expires_at > now
