"""Passwords: a user changes one, or resets a forgotten one.

The answer to a request for a reset must not tell, by its content or its time, whether the address is a user's. So the
request only stores the address, with the same writes for every address. The relay looks it up after the answer, once
(`open_resets`).
"""

import logging
import re
from collections.abc import Sequence

from backend.domain import Caller, Event, User
from backend.errors import Unauthorized, ValidationFailed
from backend.infrastructure.database import Database, Tx
from backend.infrastructure.ids import is_id, new_id
from backend.infrastructure.keyring import Keyring
from backend.infrastructure.passwords import FailureCount, Passwords
from backend.repositories import password_resets, reset_requests, sessions, users
from backend.repositories.users import Credentials
from backend.services.events import INTERNAL, EventBus, Subscriber
from backend.services.mails import owe_mail
from backend.services.password_rules import weakness
from backend.services.rights import authorised

RESET_LIFETIME = 30 * 60 * 1000  # milliseconds
RESET_LABEL = "password reset"
RESET_ASKED = "reset asked"  # an internal event; its resource is a row of `reset_requests`
SIGNATURE = re.compile(r"[0-9a-f]{64}")  # as `reset_token` writes it

log = logging.getLogger(__name__)


class UserCredentials:
    """Thread-safe."""

    def __init__(self, database: Database, passwords: Passwords, keyring: Keyring, events: EventBus) -> None:
        self._database = database
        self._passwords = passwords
        self._keyring = keyring
        self._events = events

    def change(self, caller: Caller, current: str, new: str, wrong: FailureCount | None = None) -> None:
        """Set a new password. The caller's login goes on, all others end.

        Raises ValidationFailed for a weak password, Unauthorized `credentials` if `current` is wrong (`wrong` counts
        that), RateLimited if that count is full, Unavailable if too many passwords wait.
        """
        _refuse_weak(new, caller.user)
        with self._database.read() as tx:
            before = users.credentials_by_id(tx, caller.user.id)
        hashed = self._passwords.replaced(current, before.password_hash, new, wrong) if before else None
        if before is None or hashed is None:
            raise wrong_current_password(caller)
        with authorised(self._database, caller) as (tx, caller):
            check_unchanged(tx, before)
            self._set(tx, caller.user.id, hashed, keep_session=caller.session_id)
            self._publish(tx, "password.changed", caller.user)

    def request_reset(self, email: str) -> None:
        """Store the request. Does the same work for every address."""
        with self._database.transaction() as tx:
            request_id = new_id()
            reset_requests.insert(tx, request_id, email)
            self._events.publish(tx, RESET_ASKED, (INTERNAL, request_id), None)

    def subscriber(self) -> Subscriber:
        return Subscriber("resets", record=self.open_resets, wants=lambda event: event.name == RESET_ASKED)

    def open_resets(self, tx: Tx, events: Sequence[Event]) -> None:
        """Look up the stored requests. An active user is owed a mail with a reset token.

        The token of a reset that is still open goes out again; its lifetime does not change.
        """
        for event in events:
            email = reset_requests.take(tx, event.resource_id)
            found = users.credentials_by_email(tx, email) if email else None
            if found is None or not found.user.active:
                continue
            if not password_resets.open_of(tx, found.user.id, tx.now - RESET_LIFETIME):
                password_resets.insert(tx, new_id(), found.user.id)
            self._publish(tx, "password.reset_requested", found.user, cause=event)

    def open_token(self, user_id: str, email: str) -> str | None:
        """The token of the user's open reset; None if there is none, or if `email` is no longer the user's.

        It is derived from the reset's id and stored nowhere. Webhooks get the event, so not even that id is in it.
        """
        with self._database.snapshot() as tx:
            user = users.by_id(tx, user_id)
            reset_id = password_resets.open_of(tx, user_id, tx.now - RESET_LIFETIME)
        return self.reset_token(reset_id) if reset_id and user and user.email == email else None

    def reset_token(self, reset_id: str) -> str:
        return f"{reset_id}.{self._keyring.sign(RESET_LABEL, reset_id.encode()).hex()}"

    def confirm_reset(self, token: str, new: str) -> None:
        """Set a new password; every login ends. Raises ValidationFailed for a bad token or a weak password."""
        reset_id = self._verified(token)
        with self._database.read() as tx:
            _refuse_weak(new, self._owner(tx, reset_id))
        hashed = self._passwords.hash(new)
        with self._database.transaction() as tx:
            user = self._owner(tx, reset_id)
            self._set(tx, user.id, hashed)
            self._publish(tx, "password.reset", user)

    def _publish(self, tx: Tx, name: str, user: User, cause: Event | None = None) -> None:
        """Publish the event and owe the user a mail about it."""
        event = self._events.publish(tx, name, ("user", user.id), user.id, cause=cause)
        owe_mail(tx, event, user)

    def _set(self, tx: Tx, user_id: str, password_hash: str, keep_session: str = "") -> None:
        users.set_password(tx, user_id, password_hash)
        users.raise_token_version(tx, user_id)
        sessions.end_all(tx, user_id, but=keep_session)
        password_resets.end_all(tx, user_id)

    def _verified(self, token: str) -> str:
        """The reset's id, if this service has made the token. Raises ValidationFailed."""
        reset_id, _, signature = token.partition(".")
        given = bytes.fromhex(signature) if SIGNATURE.fullmatch(signature) else b""
        if not is_id(reset_id) or not self._keyring.verifies(RESET_LABEL, reset_id.encode(), given):
            raise _bad_token()
        return reset_id

    def _owner(self, tx: Tx, reset_id: str) -> User:
        """The active user of an open reset. Raises ValidationFailed."""
        user_id = password_resets.open_by_id(tx, reset_id, tx.now - RESET_LIFETIME)
        user = users.by_id(tx, user_id) if user_id else None
        if user is None or not user.active:
            raise _bad_token()
        return user


def wrong_current_password(caller: Caller) -> Unauthorized:
    """The error to raise. Logs a warning."""
    log.warning("wrong current password: user %s", caller.user.id)
    return Unauthorized("credentials")


def check_unchanged(tx: Tx, before: Credentials) -> None:
    """Raise Unauthorized if the password has changed since `before` was read: bcrypt ran in between, and is slow."""
    now = users.credentials_by_id(tx, before.user.id)
    if now is None or now.token_version != before.token_version:
        raise Unauthorized("credentials")


def _refuse_weak(password: str, user: User) -> None:
    problem = weakness(password, user.email, user.name)
    if problem:
        raise ValidationFailed({"newPassword": problem})


def _bad_token() -> ValidationFailed:
    return ValidationFailed({"token": "is invalid, used or expired"})
