"""Users: sign-up, profile, administration."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from typing import Any

from backend.domain import Caller, Precondition, User, UserWithOrders
from backend.errors import Conflict, Contention, NotFound, PreconditionFailed, ValidationFailed
from backend.infrastructure.cache import Cache
from backend.infrastructure.database import Database, Duplicate, Tx
from backend.infrastructure.ids import new_id
from backend.infrastructure.passwords import FailureCount, Passwords
from backend.repositories import mails, orders, password_resets, sessions, users
from backend.repositories.users import Credentials
from backend.services.credentials import check_unchanged, wrong_current_password
from backend.services.events import EventBus
from backend.services.mails import owe_mail
from backend.services.rights import as_admin, authorised

ADMIN_ONLY = {"roles", "active"}
UNMATCHED = "!"  # matches no password: not a bcrypt hash
ERASED = 1000  # sessions in one transaction
NO_DOMAIN = "invalid"  # RFC 2606. Sign-up refuses domains of one label, so no user can take such an address first


class Users:
    """Thread-safe."""

    def __init__(self, database: Database, cache: Cache, passwords: Passwords, events: EventBus) -> None:
        self._database = database
        self._cache = cache
        self._passwords = passwords
        self._events = events

    def sign_up(self, email: str, password: str, name: str) -> User:
        """Create a user. Raises Conflict if the e-mail is taken, Unavailable if too many passwords wait."""
        password_hash = self._passwords.hash(password)
        with self._database.transaction() as tx:
            return self.create(tx, email, password_hash, name)

    def create(self, tx: Tx, email: str, password_hash: str, name: str) -> User:
        """Raises Conflict if the e-mail is taken."""
        user = User(new_id(), email, name, ("user",), True, 1, tx.now, tx.now)
        try:
            users.insert(tx, user, password_hash)
        except Duplicate:
            raise _email_taken() from None
        self._events.publish(tx, "user.created", ("user", user.id), user.id)
        return user

    def get(self, user_id: str) -> User:
        """Raises NotFound."""
        user = self._cache.get_or_load(
            ("user", user_id), lambda tx: users.by_id(tx, user_id), tags=(f"users:{user_id}",)
        )
        if user is None:
            raise NotFound
        return user

    def page(
        self, *, q: str | None, role: str | None, sort: str, with_orders: bool, limit: int, offset: int
    ) -> tuple[Sequence[User], int]:
        """A page of users and the number of all that match, with each user's newest orders if wanted.

        Runs a fixed number of statements.
        """
        with self._database.snapshot() as tx:
            shown, total = users.page(tx, q=q, role=role, sort=sort, limit=limit, offset=offset)
            if not with_orders:
                return shown, total
            orders_of = orders.of_users(tx, [user.id for user in shown])
        return [UserWithOrders(**asdict(user), orders=orders_of[user.id]) for user in shown], total

    def update(
        self, caller: Caller, user_id: str, changes: Mapping[str, Any], precondition: Precondition,
        current_password: str | None = None, wrong: FailureCount | None = None,
    ) -> User:  # fmt: skip
        """Change a profile. Values that stay the same are no change.

        A change of the caller's own e-mail takes `current_password`: raises ValidationFailed without it,
        Unauthorized `credentials` if it is wrong (`wrong` counts that), RateLimited if that count is full, Unavailable
        if too many passwords wait. Raises Forbidden, NotFound, PreconditionFailed, and Conflict for an e-mail that is
        taken or the last active admin.
        """
        if ADMIN_ONLY & changes.keys():
            caller = as_admin(caller)
        needs_password = changes_own_email(caller, user_id, changes)
        proof = self._proof(caller, current_password, wrong) if needs_password else None
        with authorised(self._database, caller, user_id) as (tx, caller):
            user = _required(users.by_id(tx, user_id), precondition)
            changed = replace(user, **changes)
            changed = replace(changed, roles=tuple(sorted(changed.roles)))  # their order has no meaning
            if changed == user:
                return user
            if changes_own_email(caller, user_id, changes):
                if proof is None:  # the e-mail has changed since the check before this transaction
                    raise _password_required()
                check_unchanged(tx, proof)
            return self._save(tx, caller.user.id, user, changed)

    def delete(self, caller: Caller, user_id: str, precondition: Precondition) -> None:
        """Deactivate and anonymise the user, and revoke all sessions; ledger and orders stay. Idempotent.

        Also erases the clients' addresses and user agents: of the first ERASED sessions in the same transaction, of the
        others in further ones. If one of those raises Unavailable, repeating the call completes the work.
        """
        with authorised(self._database, caller, user_id) as (tx, caller):
            user = _required(users.by_id(tx, user_id), precondition)
            gone = replace(user, email=f"deleted-{user_id}@{NO_DOMAIN}", name="Deleted user", active=False)
            if gone != user:
                self._save(tx, caller.user.id, user, gone)
                users.set_password(tx, user_id, UNMATCHED)
                mails.delete_all(tx, user_id)
                self._events.publish(tx, "user.deleted", ("user", user_id), caller.user.id)
            more = sessions.erase_origins(tx, user_id, ERASED) == ERASED
        if more:
            self._erase_origins(user_id)

    def _erase_origins(self, user_id: str) -> None:
        """Finish a committed deletion: rights are not checked again, and a lost race repeats only the last batch."""
        more = True
        while more:
            with suppress(Contention):
                with self._database.transaction() as tx:
                    erased = sessions.erase_origins(tx, user_id, ERASED)
                more = erased == ERASED

    def create_admin(self, email: str, password: str, name: str) -> None:
        """Create a user with the admin role. Raises Conflict if the e-mail is taken, Unavailable."""
        password_hash = self._passwords.hash(password)
        with self._database.transaction() as tx:
            self.grant_admin(tx, self.create(tx, email, password_hash, name).id)

    def promote(self, email: str) -> None:
        """Give the user with this e-mail the admin role and end all logins, some of which may be an intruder's.

        Raises NotFound, and Conflict if the user is deactivated.
        """
        with self._database.transaction() as tx:
            found = users.credentials_by_email(tx, email)
            if found is None:
                raise NotFound("No user has this e-mail address.")
            if not found.user.active:
                raise Conflict("The user is deactivated.")
            self.grant_admin(tx, found.user.id)
            sessions.end_all(tx, found.user.id)
            self._events.publish(tx, "session.all_ended", ("user", found.user.id), None)

    def set_active(self, email: str, active: bool) -> User:
        """Deactivate or activate a user for the command line, which has no caller. Idempotent.

        Raises NotFound, and Conflict for the last active admin.
        """
        with self._database.transaction() as tx:
            found = users.credentials_by_email(tx, email)
            if found is None:
                raise NotFound("No user has this e-mail address.")
            changed = replace(found.user, active=active)
            return found.user if changed == found.user else self._save(tx, None, found.user, changed)

    def grant_admin(self, tx: Tx, user_id: str) -> None:
        """Give the role without a check of rights: the command line has no caller. Idempotent. Raises NotFound."""
        user = _required(users.by_id(tx, user_id))
        if "admin" in user.roles:
            return
        users.update(tx, replace(user, roles=("admin", "user"), version=user.version + 1, updated_at=tx.now))
        tx.after_commit(lambda: self._cache.invalidate(f"users:{user_id}"))
        self._events.publish(tx, "user.updated", ("user", user.id), None, {"changed": ["roles"]})

    def _proof(self, caller: Caller, password: str | None, wrong: FailureCount | None) -> Credentials:
        """The caller's credentials, which `password` matches. Raises as `update`."""
        if password is None:
            raise _password_required()
        with self._database.read() as tx:
            found = users.credentials_by_id(tx, caller.user.id)
        if not self._passwords.matches(password, found.password_hash if found else None, wrong) or found is None:
            raise wrong_current_password(caller)
        return found

    def _save(self, tx: Tx, actor_id: str | None, before: User, after: User) -> User:
        """Write the change and what follows from it: ended logins and resets, the event, a notice by mail."""
        loses_admin = _is_active_admin(before) and not _is_active_admin(after)
        if loses_admin and not users.count_other_active_admins(tx, after.id):
            raise Conflict("The last active admin must stay one.")
        changed = [field.name for field in fields(User) if getattr(before, field.name) != getattr(after, field.name)]
        deactivated = before.active and not after.active
        after = replace(after, version=before.version + 1, updated_at=tx.now)
        try:
            users.update(tx, after)
        except Duplicate:
            raise _email_taken() from None
        tx.after_commit(lambda: self._cache.invalidate(f"users:{after.id}"))
        if deactivated:
            users.raise_token_version(tx, after.id)
            sessions.end_all(tx, after.id)
        if deactivated or "email" in changed:
            password_resets.end_all(tx, after.id)  # a mailed token must not outlive its address
        name = "user.deactivated" if deactivated else "user.updated"
        event = self._events.publish(tx, name, ("user", after.id), actor_id, {"changed": changed})
        if "email" in changed and not before.email.endswith(f"@{NO_DOMAIN}"):
            owe_mail(tx, event, before)
        return after


def changes_own_email(caller: Caller, user_id: str, changes: Mapping[str, Any]) -> bool:
    """Whether these changes give the caller another e-mail. One that differs only in case is another."""
    return user_id == caller.user.id and changes.get("email", caller.user.email) != caller.user.email


def _required(user: User | None, precondition: Precondition = lambda _: True) -> User:
    """The user. Raises NotFound, PreconditionFailed."""
    if user is None:
        raise NotFound
    if not precondition(user.version):
        raise PreconditionFailed
    return user


def _is_active_admin(user: User) -> bool:
    return user.active and "admin" in user.roles


def _password_required() -> ValidationFailed:
    return ValidationFailed({"currentPassword": "is required to change your own e-mail"})


def _email_taken() -> Conflict:
    return Conflict("The e-mail address is taken.", details={"email": "is taken"})
