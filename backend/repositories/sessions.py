"""The tables `sessions` and `refresh_tokens`: a login and its family of refresh tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain import Session, Timestamp, User, fold, network_of
from backend.infrastructure.database import Tx
from backend.repositories import users


@dataclass(frozen=True, slots=True)
class Login:
    """A session without what describes its client. `token_version` is the lowest `ver` of access tokens it accepts."""

    id: str
    user_id: str
    token_version: int
    created_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None


@dataclass(frozen=True, slots=True)
class Identity:
    """A session and its user, as each request needs them. `token_version` is the user's."""

    login: Login
    user: User
    token_version: int


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is stored of a refresh token. The last three fields are set when it is used."""

    token_hash: bytes
    session_id: str
    issued_at: int  # seconds, as in the token
    expires_at: int
    key_id: str
    used_at: Timestamp | None = None
    nonce: bytes | None = None
    successor: bytes | None = None


LOGIN_COLUMNS = "id, user_id, token_version, created_at, expires_at, ended_at"
LOGIN_COLUMNS_OF_SESSIONS = ", ".join(f"sessions.{column}" for column in LOGIN_COLUMNS.split(", "))
FAMILY_COLUMNS = "token_hash, session_id, issued_at, expires_at, key_id, used_at, nonce, successor"
HOUR = 3_600_000  # milliseconds
LIVE = "ended_at IS NULL AND expires_at > :now"


def insert(tx: Tx, login: Login, user_agent: str, ip: str) -> None:
    tx.write(
        f"""INSERT INTO sessions ({LOGIN_COLUMNS}, last_used_at, user_agent, ip, network)
            VALUES (:id, :user_id, :token_version, :now, :expires_at, NULL, :now, :agent, :ip, :network)""",
        id=login.id, user_id=login.user_id, token_version=login.token_version, now=login.created_at,
        expires_at=login.expires_at, agent=user_agent, ip=ip, network=network_of(ip),
    )  # fmt: skip


def by_id(tx: Tx, session_id: str) -> Login | None:
    row = tx.row(f"SELECT {LOGIN_COLUMNS} FROM sessions WHERE id = :id{tx.for_update}", id=session_id)
    return Login(*row) if row else None


def identity(tx: Tx, session_id: str, user_id: str) -> Identity | None:
    """The login and its user, or None if the user has no such login. In a transaction it locks user, then login."""
    row = tx.row(
        f"""SELECT {LOGIN_COLUMNS_OF_SESSIONS}, users.token_version, {users.COLUMNS_OF_USERS}
            FROM users JOIN sessions ON users.id = user_id
            WHERE sessions.id = :id AND users.id = :user_id{tx.for_update}""",
        id=session_id,
        user_id=user_id,
    )
    return Identity(Login(*row[:6]), users.user_of(*row[7:]), row[6]) if row else None


def has_login_from(tx: Tx, email: str, ip: str, since: int) -> bool:
    """Whether the user with this e-mail has logged in from the network of `ip` after `since`.

    The login may have ended. An unknown e-mail takes as long: it searches both tables as well.
    """
    row = tx.row(
        """SELECT 1 FROM sessions WHERE user_id = coalesce((SELECT id FROM users WHERE email_key = :key), '')
           AND network = :network AND created_at > :since LIMIT 1""",
        key=fold(email), network=network_of(ip), since=since,
    )  # fmt: skip
    return row is not None


def live_of(tx: Tx, user_id: str, current: str, limit: int) -> Sequence[Session]:
    """The user's live sessions, newest first. `current` is the id of the one that makes the request.

    `last_used_at` is cut to the hour. A stolen refresh token still gives the successor for a few seconds after its
    owner has used it; the exact time would tell a thief when. For the current session it is the hour of the request:
    otherwise polling with a stolen access token would reveal the first refresh in each hour.
    """
    rows = tx.rows(
        f"""SELECT id, created_at, CASE WHEN id = :current THEN :now ELSE last_used_at END, user_agent, ip FROM sessions
            WHERE user_id = :user_id AND {LIVE} ORDER BY id DESC LIMIT :limit""",
        user_id=user_id, current=current, now=tx.now, limit=limit,
    )  # fmt: skip
    return [
        Session(session_id, created_at, _hour_of(used_at), user_agent, ip, session_id == current)
        for session_id, created_at, used_at, user_agent, ip in rows
    ]


def live_ids(tx: Tx, user_id: str, limit: int) -> list[str]:
    """The ids of the `limit` live sessions that expire first, oldest first."""
    rows = tx.rows(
        f"SELECT id FROM sessions WHERE user_id = :user_id AND {LIVE} ORDER BY expires_at LIMIT :limit",
        user_id=user_id, now=tx.now, limit=limit,
    )  # fmt: skip
    return sorted(session_id for (session_id,) in rows)


def touch(tx: Tx, session_id: str, expires_at: int) -> None:
    tx.write(
        "UPDATE sessions SET last_used_at = :now, expires_at = :expires_at WHERE id = :id",
        id=session_id, now=tx.now, expires_at=expires_at,
    )  # fmt: skip


def end(tx: Tx, session_id: str) -> bool:
    """End the session. Returns False if it was not live."""
    return tx.run(f"UPDATE sessions SET ended_at = :now WHERE id = :id AND {LIVE}", id=session_id, now=tx.now) > 0


def end_all(tx: Tx, user_id: str, but: str = "") -> None:
    """End the user's live sessions except `but`."""
    tx.write(
        f"UPDATE sessions SET ended_at = :now WHERE user_id = :user_id AND id <> :but AND {LIVE}",
        user_id=user_id, but=but, now=tx.now,
    )  # fmt: skip


def erase_origins(tx: Tx, user_id: str, limit: int) -> int:
    """Erase where the user's sessions came from, live or not, at most `limit` of them. Returns their number."""
    return tx.run(
        """UPDATE sessions SET user_agent = '', ip = '', network = '' WHERE id IN
           (SELECT id FROM sessions WHERE user_id = :user_id AND (user_agent <> '' OR ip <> '') LIMIT :limit)""",
        user_id=user_id,
        limit=limit,
    )


def insert_token(tx: Tx, token: RefreshToken) -> None:
    tx.write(
        """INSERT INTO refresh_tokens (token_hash, session_id, issued_at, expires_at, key_id)
           VALUES (:token_hash, :session_id, :issued_at, :expires_at, :key_id)""",
        token_hash=token.token_hash, session_id=token.session_id, issued_at=token.issued_at,
        expires_at=token.expires_at, key_id=token.key_id,
    )  # fmt: skip


def token_by_hash(tx: Tx, token_hash: bytes) -> RefreshToken | None:
    row = tx.row(f"SELECT {FAMILY_COLUMNS} FROM refresh_tokens WHERE token_hash = :hash", hash=token_hash)
    return RefreshToken(*row) if row else None


def claim_token(tx: Tx, token_hash: bytes, nonce: bytes, successor: bytes) -> bool:
    """Mark the token as used. Returns True for exactly one call, ever."""
    return bool(
        tx.run(
            """UPDATE refresh_tokens SET used_at = :now, nonce = :nonce, successor = :successor
               WHERE token_hash = :hash AND used_at IS NULL""",
            hash=token_hash, nonce=nonce, successor=successor, now=tx.now,
        )
    )  # fmt: skip


def prune_tokens(tx: Tx, until: int, batch: int) -> int:
    """Delete tokens that expired at or before `until` (seconds): the oldest, and at most `batch`. Returns their number.

    A token that names a deleted one as its successor forgets it.
    """
    return tx.run(
        """DELETE FROM refresh_tokens WHERE token_hash IN
           (SELECT token_hash FROM refresh_tokens WHERE expires_at <= :until ORDER BY expires_at LIMIT :batch)""",
        until=until,
        batch=batch,
    )


def _hour_of(time: int) -> Timestamp:
    return Timestamp(time - time % HOUR)
