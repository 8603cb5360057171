"""Passwords of users: changing one, resetting a forgotten one."""

import re

from backend.domain import Caller, User
from backend.errors import Unauthorized, ValidationFailed
from backend.infrastructure.database import Database
from backend.infrastructure.ids import is_id, new_id
from backend.infrastructure.keyring import Keyring
from backend.infrastructure.passwords import Passwords
from backend.infrastructure.transaction import Transaction
from backend.repositories import password_resets, sessions, users
from backend.services.events import EventBus
from backend.services.password_rules import weakness
from backend.services.rights import authorised

RESET_LIFETIME = 30 * 60 * 1000  # milliseconds
RESET_LABEL = "password reset"
SIGNATURE = re.compile(r"[0-9a-f]{64}")  # as `reset_token` writes it


class UserCredentials:
    """Thread-safe."""

    def __init__(self, database: Database, passwords: Passwords, keyring: Keyring, events: EventBus) -> None:
        self._database = database
        self._passwords = passwords
        self._keyring = keyring
        self._events = events

    def change(self, caller: Caller, current: str, new: str) -> None:
        """Every other login ends, the caller's goes on. Raises ValidationFailed, Unauthorized `credentials`."""
        _refuse_weak(new, caller.user)
        with self._database.snapshot() as tx:
            before = users.credentials_by_id(tx, caller.user.id)
        hashed = self._passwords.replaced(current, before.password_hash, new) if before else None
        if before is None or hashed is None:
            raise Unauthorized("credentials")
        with authorised(self._database, caller, patient=True) as (tx, caller):
            now = users.credentials_by_id(tx, caller.user.id)
            if now is None or now.token_version != before.token_version:
                raise Unauthorized("credentials")  # somebody was faster while bcrypt ran
            self._set(tx, caller.user.id, hashed, keep_session=caller.session_id)
            self._events.publish(tx, "password.changed", ("user", caller.user.id), caller.user.id)

    def request_reset(self, email: str) -> None:
        """If the address is an active user's, a new reset token goes to the mailer; older ones are void."""
        with self._database.transaction() as tx:  # for an unknown address too: a busy database must not tell them apart
            found = users.credentials_by_email(tx, email)
            if found is None or not found.user.active:
                return
            password_resets.insert(tx, new_id(), found.user.id)
            self._events.publish(tx, "password.reset_requested", ("user", found.user.id), found.user.id)

    def requested_reset(self, user_id: str) -> tuple[User, str] | None:
        """The user and the token he waits for, if he does: it is made from the id of his open request, stored nowhere.

        Not even that id is in the event: webhooks have it too.
        """
        with self._database.snapshot() as tx:
            reset_id = password_resets.open_of(tx, user_id, tx.now - RESET_LIFETIME)
            user = users.by_id(tx, user_id)
        return (user, self.reset_token(reset_id)) if user and user.active and reset_id else None

    def reset_token(self, reset_id: str) -> str:
        return f"{reset_id}.{self._keyring.sign(RESET_LABEL, reset_id.encode()).hex()}"

    def confirm_reset(self, token: str, new: str) -> None:
        """Set a new password; every login ends. Raises ValidationFailed for a bad token or password."""
        reset_id = self._verified(token)
        with self._database.snapshot() as tx:
            _refuse_weak(new, self._owner(tx, reset_id))
        hashed = self._passwords.hash(new)
        with self._database.transaction(patient=True) as tx:
            user = self._owner(tx, reset_id)
            self._set(tx, user.id, hashed)
            self._events.publish(tx, "password.reset", ("user", user.id), user.id)

    def _set(self, tx: Transaction, user_id: str, password_hash: str, keep_session: str = "") -> None:
        users.set_password(tx, user_id, password_hash)
        users.raise_token_version(tx, user_id)
        sessions.end_all(tx, user_id, but=keep_session)
        password_resets.end_all(tx, user_id)

    def _verified(self, token: str) -> str:
        reset_id, _, signature = token.partition(".")
        given = bytes.fromhex(signature) if SIGNATURE.fullmatch(signature) else b""
        if not is_id(reset_id) or not self._keyring.verifies(RESET_LABEL, reset_id.encode(), given):
            raise _bad_token()
        return reset_id

    def _owner(self, tx: Transaction, reset_id: str) -> User:
        found = password_resets.open_by_id(tx, reset_id)
        user = users.by_id(tx, found[0]) if found and tx.now - found[1] < RESET_LIFETIME else None
        if user is None or not user.active:
            raise _bad_token()
        return user


def _refuse_weak(password: str, user: User) -> None:
    problem = weakness(password, user.email, user.name)
    if problem:
        raise ValidationFailed({"newPassword": problem})


def _bad_token() -> ValidationFailed:
    return ValidationFailed({"token": "is not valid, or no longer"})
