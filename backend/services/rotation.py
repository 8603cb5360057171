"""Refresh rotation: each refresh token works once. Using it again revokes the family: it may have been stolen.

Within a short grace, repeating the request gives the same successor again, because the first answer may have been lost.
Only hashes of tokens are stored, so the successor is computed again: its `jti` is an HMAC of the old token and a nonce
that is stored when that token is used, and `iat`, `exp` and `kid` are stored with the successor's hash. This
takes the old token, the database and a secret of this service; no two of them are enough.
"""

import hashlib
import secrets
from dataclasses import dataclass

from backend.domain import Timestamp
from backend.errors import Unauthorized
from backend.infrastructure.database import Tx
from backend.infrastructure.keyring import Keyring
from backend.infrastructure.tokens import Tokens
from backend.repositories import sessions
from backend.repositories.sessions import Login, RefreshToken

LOGIN_SECONDS = 30 * 86_400  # the longest life of a login, however often it is refreshed


@dataclass(frozen=True)
class Issued:
    """A refresh token, and what is stored of it."""

    token: str
    kept: RefreshToken


class Rotation:
    """Thread-safe. Reads and writes only in the transactions that it is given."""

    def __init__(self, tokens: Tokens, keyring: Keyring, refresh_seconds: int, grace_seconds: int) -> None:
        self._tokens = tokens
        self._keyring = keyring
        self._refresh_seconds = refresh_seconds
        self._grace = grace_seconds * 1000

    def expiry(self, created_at: Timestamp, now: Timestamp) -> int:
        """When a refresh token that is issued `now` for a login expires, in seconds since 1970."""
        return min(now // 1000 + self._refresh_seconds, created_at // 1000 + LOGIN_SECONDS)

    def first(self, login: Login) -> Issued:
        """The first refresh token of a new login."""
        issued_at, expires_at = login.created_at // 1000, login.expires_at // 1000
        return self._issue(login, secrets.token_hex(32), issued_at, expires_at, self._keyring.signing_id)

    def issued(self, tx: Tx, token: str) -> RefreshToken:
        """What is stored of a token. Raises Unauthorized `invalid` unless exactly this token was issued.

        A good signature does not prove that: the database may have been restored, or a secret may have leaked.
        """
        kept = sessions.token_by_hash(tx, _hash(token))
        if kept is None:
            raise Unauthorized("invalid")
        return kept

    def rotate(self, tx: Tx, login: Login, used: RefreshToken, token: str) -> str | None:
        """The successor of `token`, which is stored as `used` and belongs to this live login.

        Returns None if the token is reused: the caller must end the login. Raises Unauthorized `invalid` within the
        grace if the successor's key is not in this keyring: it was withdrawn, or only newer workers have it. That is
        no reuse and ends nothing.
        """
        if used.used_at is not None:
            return self._again(tx, login, used, token)
        nonce = secrets.token_bytes(16)
        key_id = self._keyring.signing_id
        jti = self._jti(token, nonce, key_id)
        successor = self._issue(login, jti, tx.now // 1000, self.expiry(login.created_at, tx.now), key_id)
        if not sessions.claim_token(tx, used.token_hash, nonce, successor.kept.token_hash):
            return None
        sessions.insert_token(tx, successor.kept)
        sessions.touch(tx, login.id, successor.kept.expires_at * 1000)
        return successor.token

    def _again(self, tx: Tx, login: Login, used: RefreshToken, token: str) -> str | None:
        """The same successor again, within the grace and while it is itself unused; otherwise None."""
        kept = sessions.token_by_hash(tx, used.successor or b"")
        if kept is None or kept.used_at is not None or used.used_at is None or used.nonce is None:
            return None
        if tx.now - used.used_at > self._grace:
            return None
        if kept.key_id not in self._keyring:
            raise Unauthorized("invalid")
        jti = self._jti(token, used.nonce, kept.key_id)
        return self._issue(login, jti, kept.issued_at, kept.expires_at, kept.key_id).token

    def _issue(self, login: Login, jti: str, issued_at: int, expires_at: int, key_id: str) -> Issued:
        claims = {"sub": login.user_id, "sid": login.id, "jti": jti, "iat": issued_at, "exp": expires_at}
        token = self._tokens.issue("refresh", claims, key_id)
        return Issued(token, RefreshToken(_hash(token), login.id, issued_at, expires_at, key_id))

    def _jti(self, token: str, nonce: bytes, key_id: str) -> str:
        return self._keyring.sign("refresh successor", nonce + token.encode(), key_id).hex()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
