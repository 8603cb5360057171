"""JSON Web Tokens (RFC 7519), signed with HS256; the header's `kid` names the secret.

A token is accepted only if this service could have issued it: algorithm, type, issuer, audience and key must match,
every claim must be present with the right type, and the lifetime must not exceed the configured one. Times have no
leeway, since the workers of a machine share its clock. Over several hosts, `iat` may be ahead by `clock_skew` seconds.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jwt
from jwt.utils import base64url_decode, base64url_encode

from backend.errors import Unauthorized
from backend.infrastructure.keyring import Keyring

ISSUER = AUDIENCE = "reference-backend"
TokenType = Literal["access", "refresh"]
Claims = Mapping[str, Any]

CLAIMS: dict[str, dict[str, type]] = {
    "access": {"sub": str, "sid": str, "jti": str, "ver": int, "email": str, "roles": list, "iat": int, "exp": int},
    "refresh": {"sub": str, "sid": str, "jti": str, "iat": int, "exp": int},
}
CACHED = 4096  # verified tokens
MAX_TOKEN = 4096  # characters; the service's own have fewer than half as many; a longer one would only cost time


class Tokens:
    """Issues and verifies tokens. Thread-safe: single operations on the dict of verified tokens are atomic."""

    def __init__(
        self, keyring: Keyring, access_seconds: int, refresh_seconds: int, clock: Callable[[], float] = time.time,
        clock_skew: float = 0.0,
    ) -> None:  # fmt: skip
        self._keyring = keyring
        self._lifetimes = {"access": access_seconds, "refresh": refresh_seconds}
        self._clock, self._clock_skew = clock, clock_skew
        self._verified: dict[bytes, Claims] = {}

    def issue(self, type: TokenType, claims: Claims, key_id: str | None = None) -> str:
        """Sign `claims`, which include `iat` and `exp`. The same claims and key give the same token."""
        key_id = key_id or self._keyring.signing_id
        whole = {**claims, "type": type, "iss": ISSUER, "aud": AUDIENCE}
        return jwt.encode(whole, self._keyring[key_id], "HS256", headers={"kid": key_id})

    def verify(self, type: TokenType, token: str) -> Claims:
        """The claims of the token. Raises Unauthorized `invalid` or `expired`."""
        if len(token) > MAX_TOKEN:
            raise Unauthorized("invalid")
        # PyJWT takes over 30 µs, a hit under 2. The keys are digests, so that the cache holds no usable token.
        digest = hashlib.sha256(f"{type} {token}".encode("utf-8", "replace")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._decode(type, token)
            if len(self._verified) >= CACHED:
                self._verified.clear()
            self._verified[digest] = claims
        now = self._clock()
        if claims["iat"] > now + self._clock_skew:
            raise Unauthorized("invalid")
        if claims["exp"] <= now:
            raise Unauthorized("expired")
        return claims

    def _decode(self, type: TokenType, token: str) -> Claims:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("kid") not in self._keyring or "crit" in header:
                raise Unauthorized("invalid")
            claims = jwt.decode(
                token, self._keyring[header["kid"]], ["HS256"], audience=AUDIENCE, issuer=ISSUER,
                options={"verify_exp": False, "verify_iat": False, "strict_aud": True},
            )  # fmt: skip
        except (jwt.PyJWTError, UnicodeError, ValueError, RecursionError):
            raise Unauthorized("invalid") from None
        if claims.get("type") != type or not (_well_formed(claims, CLAIMS[type]) and _is_canonical(token)):
            raise Unauthorized("invalid")
        if not 0 < claims["exp"] - claims["iat"] <= self._lifetimes[type]:
            raise Unauthorized("invalid")
        return claims


def _is_canonical(token: str) -> bool:
    """Whether the signature is encoded as `issue` encodes it.

    Decoders ignore padding, spare bits and characters outside the alphabet, so one token would have many spellings.
    """
    signature = token.rpartition(".")[2]
    return base64url_encode(base64url_decode(signature)).decode() == signature


def _well_formed(claims: Claims, wanted: Mapping[str, type]) -> bool:
    return all(type(claims.get(name)) is kind for name, kind in wanted.items())
