"""Tokens: their times to the second, and the keys. `web/test_tokens.py` has the tests over HTTP."""

import jwt
import pytest

from backend.errors import Unauthorized
from backend.infrastructure.keyring import Keyring
from backend.infrastructure.tokens import Tokens

ONE, TWO = "one secret of at least 32 bytes, first", "two secret of at least 32 bytes, other"
LIFETIMES = {"access": 900, "refresh": 3600}
ISSUED = 1_000_000
OF_BOTH = {"sub": "user", "sid": "session", "jti": "id"}
CLAIMS = {"access": {**OF_BOTH, "email": "e@example.com", "roles": ["user"], "ver": 0}, "refresh": OF_BOTH}


def tokens_at(now, secrets=(ONE,), access_seconds=LIFETIMES["access"]):
    return Tokens(Keyring(secrets), access_seconds, LIFETIMES["refresh"], lambda: now)


def issued(kind, iat=ISSUED, exp=None, secrets=(ONE,)):
    times = {"iat": iat, "exp": iat + LIFETIMES[kind] if exp is None else exp}
    return tokens_at(iat, secrets).issue(kind, {**CLAIMS[kind], **times})


def result(tokens, kind, token):
    """`good`, or the reason of the refusal, verified twice: the second time from the cache."""

    def once():
        try:
            tokens.verify(kind, token)
        except Unauthorized as error:
            return error.details["reason"]
        return "good"

    first, second = once(), once()
    assert first == second
    return first


@pytest.mark.parametrize("kind", LIFETIMES)
@pytest.mark.parametrize(("age", "expected"), [(-1, "invalid"), (-0.001, "invalid"), (0, "good"), (1, "good")])
def test_a_token_from_the_future_is_invalid_without_leeway(kind, age, expected):
    assert result(tokens_at(ISSUED + age), kind, issued(kind)) == expected


@pytest.mark.parametrize("kind", LIFETIMES)
@pytest.mark.parametrize(
    ("left", "expected"), [(1, "good"), (0.001, "good"), (0, "expired"), (-0.001, "expired"), (-1e6, "expired")]
)
def test_a_token_expires_at_its_very_second_without_leeway(kind, left, expected):
    assert result(tokens_at(ISSUED + LIFETIMES[kind] - left), kind, issued(kind)) == expected


@pytest.mark.parametrize("kind", LIFETIMES)
@pytest.mark.parametrize(("longer", "expected"), [(-899, "good"), (0, "good"), (1, "invalid"), (10**9, "invalid")])
def test_a_token_that_lives_longer_than_configured_is_invalid(kind, longer, expected):
    assert result(tokens_at(ISSUED), kind, issued(kind, exp=ISSUED + LIFETIMES[kind] + longer)) == expected


@pytest.mark.parametrize("exp", [ISSUED, ISSUED - 1, 0, -1])
def test_a_token_without_a_lifetime_is_invalid(exp):
    assert result(tokens_at(ISSUED), "access", issued("access", exp=exp)) == "invalid"


def test_a_cached_token_still_expires_and_keeps_its_type():
    """The verification is cached, because it is slow; time and type are checked each time."""
    now = [ISSUED]
    tokens = Tokens(Keyring([ONE]), 900, 3600, lambda: now[0])
    token = issued("refresh")
    assert result(tokens, "refresh", token) == "good"
    assert result(tokens, "access", token) == "invalid"
    now[0] = ISSUED + 3600
    assert result(tokens, "refresh", token) == "expired"
    now[0] = ISSUED - 1
    assert result(tokens, "refresh", token) == "invalid"


def test_shortening_the_lifetime_ends_what_was_issued_for_longer():
    assert result(tokens_at(ISSUED, access_seconds=899), "access", issued("access")) == "invalid"


def test_the_first_secret_signs_and_all_verify():
    old, new = issued("access", secrets=(ONE,)), issued("access", secrets=(TWO, ONE))
    assert jwt.get_unverified_header(new) == {"alg": "HS256", "typ": "JWT", "kid": Keyring([TWO]).signing_id}
    both, one, two = (tokens_at(ISSUED, secrets) for secrets in ((TWO, ONE), (ONE,), (TWO,)))
    assert [result(tokens, "access", old) for tokens in (both, one, two)] == ["good", "good", "invalid"]
    assert [result(tokens, "access", new) for tokens in (both, one, two)] == ["good", "invalid", "good"]


def test_the_key_is_the_secrets_utf8_bytes():
    """So another service that has the secret can verify tokens itself."""
    secret = "ein Geheimnis mit Umlauten: äöü €"
    claims = jwt.decode(
        issued("access", secrets=(secret,)), secret.encode("utf-8"), ["HS256"],
        audience="reference-backend", issuer="reference-backend", options={"verify_exp": False},
    )  # fmt: skip
    assert claims["type"] == "access"


def test_the_same_claims_and_key_give_the_same_token():
    """Refresh rotation computes a lost successor again."""
    assert issued("refresh") == issued("refresh") != issued("refresh", iat=ISSUED + 1)


def test_many_tokens_are_verified_in_bounded_memory(monkeypatch):
    """Of 4,200 tokens at most 4,096 are remembered: the others are decoded again, and are good again."""
    decode, decoded = jwt.decode, []
    monkeypatch.setattr(
        jwt, "decode", lambda token, *rest, **more: decoded.append(token) or decode(token, *rest, **more)
    )
    tokens = tokens_at(ISSUED + 1)
    made = [issued("refresh", ISSUED - number // 3000, ISSUED + 2 + number % 3000) for number in range(4200)]
    for token in made[:100] + made:
        assert tokens.verify("refresh", token)["sub"] == "user"
    assert sorted(decoded) == sorted(made)
    for token in reversed(made):
        assert tokens.verify("refresh", token)["sub"] == "user"
    assert len(decoded) >= 4200 + 104
