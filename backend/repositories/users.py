"""The table `users`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain import Timestamp, User, fold
from backend.infrastructure.database import Tx

COLUMNS = "id, email, name, roles, active, version, created_at, updated_at"
COLUMNS_OF_USERS = ", ".join(f"users.{column}" for column in COLUMNS.split(", "))
ORDERS = {
    "createdAt": "id ASC",  # ids sort by time
    "-createdAt": "id DESC",
    "email": "email_key ASC",
    "-email": "email_key DESC",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with what a login is checked against. Never cached or shown."""

    user: User
    password_hash: str
    token_version: int


def insert(tx: Tx, user: User, password_hash: str) -> None:
    """Raises Duplicate if the e-mail is taken."""
    tx.run(
        f"""INSERT INTO users ({COLUMNS}, email_key, name_key, token_version, password_hash)
            VALUES (:id, :email, :name, :roles, :active, :version, :created_at, :updated_at,
                    :email_key, :name_key, 0, :password_hash)""",
        password_hash=password_hash, created_at=user.created_at, **_changeable(user),
    )  # fmt: skip


def update(tx: Tx, user: User) -> None:
    """Raises Duplicate if the e-mail is taken."""
    tx.run(
        """UPDATE users SET email = :email, email_key = :email_key, name = :name, name_key = :name_key, roles = :roles,
           active = :active, version = :version, updated_at = :updated_at WHERE id = :id""",
        **_changeable(user),
    )


def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    tx.write("UPDATE users SET password_hash = :hash WHERE id = :id", id=user_id, hash=password_hash)


def raise_token_version(tx: Tx, user_id: str) -> None:
    """Raise the `ver` of new access tokens. A session accepts older ones from its own `token_version` on."""
    tx.write("UPDATE users SET token_version = token_version + 1 WHERE id = :id", id=user_id)


def by_id(tx: Tx, user_id: str) -> User | None:
    row = tx.row(f"SELECT {COLUMNS} FROM users WHERE id = :id{tx.for_update}", id=user_id)
    return user_of(*row) if row else None


def lock(tx: Tx, ids: Collection[str]) -> None:
    """Lock the users in the order of their ids: transactions that lock each other's users take turns."""
    tx.rows_for(f"SELECT id FROM users WHERE id IN (:ids) ORDER BY id{tx.for_update}", list(ids))


def is_active(tx: Tx, user_id: str) -> bool:
    return tx.row("SELECT 1 FROM users WHERE id = :id AND active = 1", id=user_id) is not None


def active_of_session(tx: Tx, session_id: str) -> User | None:
    """The active user of a live session, or None. One statement, because each write for a caller runs it.

    It locks the user before the session, as all writes do.
    """
    row = tx.row(
        f"""SELECT {COLUMNS_OF_USERS} FROM users JOIN sessions ON users.id = user_id
            WHERE sessions.id = :id AND ended_at IS NULL AND expires_at > :now AND active = 1{tx.for_update}""",
        id=session_id,
        now=tx.now,
    )
    return user_of(*row) if row else None


def credentials_by_email(tx: Tx, email: str) -> Credentials | None:
    return _credentials(tx, "email_key = :key", fold(email))


def credentials_by_id(tx: Tx, user_id: str) -> Credentials | None:
    return _credentials(tx, "id = :key", user_id)


def count_other_active_admins(tx: Tx, user_id: str) -> int:
    """Takes a lock: otherwise each of two transactions could count the admin that the other one removes."""
    tx.lock("active admins")
    sql = "SELECT count(*) FROM users WHERE active = 1 AND roles <> 'user' AND id <> :id"
    ((count,),) = tx.rows(sql, id=user_id)
    return int(count)


def page(tx: Tx, *, q: str | None, role: str | None, sort: str, limit: int, offset: int) -> tuple[Sequence[User], int]:
    """A page of the users whose e-mail or name contains `q`, in any case, and the number of all such users."""
    where = "1 = 1"
    if q:
        where += " AND (email_key LIKE :like ESCAPE '!' OR name_key LIKE :like ESCAPE '!')"
    if role:
        where += " AND ',' || roles || ',' LIKE '%,' || :role || ',%'"
    literal = fold(q or "").replace("!", "!!").replace("%", "!%").replace("_", "!_")
    filters = {"like": f"%{literal}%", "role": role}
    ((total,),) = tx.rows(f"SELECT count(*) FROM users WHERE {where}", **filters)
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM users WHERE {where} ORDER BY {ORDERS[sort]} LIMIT :limit OFFSET :offset",
        limit=limit, offset=offset, **filters,
    )  # fmt: skip
    return [user_of(*row) for row in rows], total


def _credentials(tx: Tx, where: str, key: str) -> Credentials | None:
    row = tx.row(f"SELECT {COLUMNS}, password_hash, token_version FROM users WHERE {where}{tx.for_update}", key=key)
    return Credentials(user_of(*row[:-2]), *row[-2:]) if row else None


def user_of(
    id_: str, email: str, name: str, roles: str, active: int, version: int, created_at: Timestamp, updated_at: Timestamp
) -> User:
    """The user of a row of COLUMNS."""
    held: tuple[Any, ...] = tuple(roles.split(","))  # roles: a CHECK of the table allows no other text
    return User(id_, email, name, held, bool(active), version, created_at, updated_at)


def _changeable(user: User) -> dict[str, object]:
    return {
        "id": user.id, "email": user.email, "email_key": fold(user.email), "name": user.name,
        "name_key": fold(user.name), "roles": ",".join(sorted(user.roles)), "active": int(user.active),
        "version": user.version, "updated_at": user.updated_at,
    }  # fmt: skip
