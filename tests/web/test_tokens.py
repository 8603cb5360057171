"""Access tokens over HTTP: only what the service could have issued is accepted."""

import base64
import hmac
import json

import jwt
import pytest

from backend.infrastructure.ids import new_id
from backend.infrastructure.keyring import Keyring
from tests.conftest import PASSWORD, SECRET
from tests.respelt import respelt

OTHER_SECRET = "an-other-secret-which-has-over-32-bytes"
KID = Keyring([SECRET]).signing_id
ABSENT = object()


def encoded(part):
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def signed(header, payload, secret=SECRET, digest="sha256"):
    """A token by hand: any header and payload, under any key; no digest, no signature."""
    text = encoded(header) + b"." + encoded(payload)
    signature = hmac.digest(secret.encode(), text, digest) if digest else b""
    return (text + b"." + encoded(signature)).decode()


def forged(person, header=None, secret=SECRET, digest="sha256", **claims):
    """Ada's access token with other claims or headers; ABSENT removes one. Unchanged, it is valid."""
    head = {"alg": "HS256", "typ": "JWT", "kid": KID, **(header or {})}
    body = {**jwt.decode(person.access, options={"verify_signature": False}), **claims}
    head, body = ({name: value for name, value in part.items() if value is not ABSENT} for part in (head, body))
    return signed(head, body, secret, digest)


def sent(api, authorization, path="/users/me"):
    return api.get(path, headers={"Authorization": authorization})


def bearer(api, token):
    return sent(api, f"Bearer {token}")


def reason(answer):
    """The details' reason of a 401 whose challenge says the same (RFC 6750, section 3)."""
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "UNAUTHORIZED"), answer.text
    named = answer.json["error"]["details"]["reason"]
    auth_error = answer.headers["WWW-Authenticate"]
    assert auth_error.startswith("Bearer")
    assert ('error="invalid_token"' in auth_error) == (named != "missing")
    return named


def test_a_token_made_by_hand_like_an_issued_one_is_valid(api, ada):
    """So every other test fails for the reason that it names."""
    assert bearer(api, forged(ada)).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_read_in_any_case(api, ada, scheme):
    assert sent(api, f"{scheme} {ada.access}").status_code == 200


def test_a_token_longer_than_any_issued_one_is_invalid(api, ada):
    """Its header would have to be parsed before the signature is checked, however long it is."""
    assert bearer(api, forged(ada, header={"x": "y" * 2500})).status_code == 200
    assert reason(bearer(api, forged(ada, header={"x": "y" * 3500}))) == "invalid"
    assert reason(bearer(api, forged(ada, x="y" * 3500))) == "invalid"


def test_the_longest_issued_token_is_valid(api):
    """It holds an e-mail address of 254 characters."""
    email = f"{'a' * 64}@{'.'.join(['b' * 63] * 2)}.{'c' * 57}.org"
    assert len(email) == 254
    body = {"email": email, "password": PASSWORD, "name": "Ada"}
    assert api.post("/users", json=body).status_code == 201
    ada = api.log_in(email)
    assert len(ada.access) < 2000
    assert bearer(api, ada.access).status_code == 200


def test_without_a_token_the_challenge_names_no_error(api):
    assert reason(api.get("/users/me")) == "missing"


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic YWRhOnBhc3N3b3Jk", "Digest x", "Bearer", "Bearer ", "Token {access}", "{access}", "Bearer:{access}",
        "Bearer{access}", "Bearer {access} {access}", "Bearer {access},Bearer {access}", 'Bearer "{access}"',
        "Bearer access_token={access}", ",",
        "Bearer \xa0{access}", "Bearer {access}\x85", "Bearer \t{access}",
    ],
)  # fmt: skip
def test_another_scheme_or_form_is_invalid(api, ada, authorization):
    assert reason(sent(api, authorization.format(access=ada.access))) == "invalid"


@pytest.mark.parametrize(
    "token",
    [
        "x", ".", "..", "...", "a.b.c", "{}.{}.{}", "e30.e30.", "e30.e30.e30", "\xff\xfe", "é.é.é", "null",
        "W10.W10.W10", "x" * 8000, "." * 5000, "A" * 4000 + "." + "A" * 3000 + ".A",
    ],
)  # fmt: skip
def test_garbage_is_invalid(api, token):
    assert reason(bearer(api, token)) == "invalid"


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "HS384", "HS512", "RS256", "ES256", "hs256", "", None, 256, ABSENT]
)
def test_another_algorithm_is_invalid(api, ada, alg):
    """Signed with its own algorithm, with the service's, or not at all."""
    named = {"HS384": "sha384", "HS512": "sha512"}.get(alg, "sha256") if isinstance(alg, str) else "sha256"
    for digest in {named, "sha256", None}:
        assert reason(bearer(api, forged(ada, {"alg": alg}, digest=digest))) == "invalid"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": ABSENT}, {"kid": "unknown"}, {"kid": None}, {"kid": 7}, {"kid": [KID]}, {"kid": {KID: 1}},
        {"kid": KID.upper()}, {"kid": ""}, {"kid": f"{KID} "}, {"kid": "../../dev/null"}, {"crit": ["exp"]},
        {"crit": []}, {"crit": None}, {"crit": ["x"], "x": 1}, {"b64": False}, {"b64": False, "crit": ["b64"]},
    ],
)  # fmt: skip
def test_a_missing_or_unknown_kid_and_any_crit_are_invalid(api, ada, header):
    assert reason(bearer(api, forged(ada, header))) == "invalid"


def test_another_secret_is_invalid_whatever_its_kid(api, ada):
    for kid in (KID, Keyring([OTHER_SECRET]).signing_id):
        assert reason(bearer(api, forged(ada, {"kid": kid}, OTHER_SECRET))) == "invalid"


def test_an_unsigned_or_tampered_token_is_invalid(api, ada):
    """One other character in each part, a part of another token, a cut or longer signature."""
    head, body, signature = ada.access.split(".")
    elevated = encoded({**jwt.decode(ada.access, options={"verify_signature": False}), "roles": ["admin"]}).decode()

    def other(text, place):
        return f"{text[:place]}{'A' if text[place] != 'A' else 'B'}{text[place + 1 :]}"

    tampered = [
        f"{head}.{body}.", f"{head}.{body}", f"{head}.{elevated}.{signature}", f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}.{signature}AAAA", f"{ada.access}.{signature}", f"{head}.{body}.{signature[::-1]}",
        *(f"{head}.{body}.{other(signature, place)}" for place in (0, 20, 41)),
        *(f"{head}.{other(body, place)}.{signature}" for place in (0, 50, len(body) - 2)),
        f"{other(head, 10)}.{body}.{signature}", f"{head}.{body}.{ada.refresh.split('.')[2]}",
    ]  # fmt: skip
    assert [token for token in tampered if reason(bearer(api, token)) != "invalid"] == []
    assert api.get("/users/me", ada).status_code == 200


def test_another_spelling_of_a_valid_token_is_invalid(api, ada):
    """Padding, spare bits and foreign characters in what decodes to the same signature."""
    others = [token for token in respelt(ada.access) if token == "".join(token.split())]
    assert len(others) > 5
    assert [token for token in others if reason(bearer(api, token)) != "invalid"] == []
    assert api.get("/users/me", ada).status_code == 200


CLAIMS = ("sub", "email", "roles", "type", "ver", "sid", "iss", "aud", "iat", "exp", "jti")
WRONG_TYPES = {
    "sub": [7, None, []], "email": [7, None], "roles": ["admin", None, {"admin": True}],
    "type": [None, "", "Access", ["access"]], "ver": ["0", None, True, 0.0], "sid": [7, None, []], "jti": [7, None],
    "iss": [None, "", "another", ["reference-backend"], 7],
    "aud": [None, "", "another", ["reference-backend"], {}, 7],
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_token_without_a_required_claim_is_invalid(api, ada, claim):
    assert reason(bearer(api, forged(ada, **{claim: ABSENT}))) == "invalid"


@pytest.mark.parametrize(
    ("claim", "value"), [(claim, value) for claim, values in WRONG_TYPES.items() for value in values]
)
def test_a_claim_of_another_type_or_value_is_invalid(api, ada, claim, value):
    assert reason(bearer(api, forged(ada, **{claim: value}))) == "invalid"


@pytest.mark.parametrize("payload", [[], "text", 7, None, True, b"", b"{", b"\xff", b"[" * 10_000])
def test_a_payload_that_is_no_object_is_invalid(api, payload):
    assert reason(bearer(api, signed({"alg": "HS256", "kid": KID}, payload))) == "invalid"


@pytest.mark.parametrize("header", [[], "text", None, b"", b"{", b"[" * 10_000])
def test_a_header_that_is_no_object_is_invalid(api, ada, header):
    payload = jwt.decode(ada.access, options={"verify_signature": False})
    assert reason(bearer(api, signed(header, payload))) == "invalid"


NO_TIMES = ["soon", "1700000000", True, None, 1e9 + 0.5, [1], -1, 10**30, b"1e999", b"9" * 5000]


@pytest.mark.parametrize("claim", ["iat", "exp"])
@pytest.mark.parametrize("value", NO_TIMES)
def test_times_that_the_service_never_issues_are_invalid(api, ada, claim, value):
    """Also numbers that Python's JSON would not write."""
    token = forged(ada, **{claim: "RAW" if isinstance(value, bytes) else value})
    if isinstance(value, bytes):
        body = base64.urlsafe_b64decode(token.split(".")[1] + "==").replace(b'"RAW"', value)
        token = signed({"alg": "HS256", "typ": "JWT", "kid": KID}, body)
    assert reason(bearer(api, token)) == "invalid"


def test_rights_come_from_the_database_and_not_from_the_token(api, ada, grace):
    """Even of a signed token: its roles grant nothing, and session, user and `ver` must belong together."""
    assert sent(api, f"Bearer {forged(ada, roles=['admin'])}", "/users").status_code == 403
    for claims in ({"ver": 1}, {"ver": -1}, {"sub": grace.id}, {"sid": new_id()}, {"sid": "", "sub": ""}):
        assert reason(bearer(api, forged(ada, **claims))) == "revoked"


def test_refresh_and_access_tokens_do_not_stand_for_each_other(api, ada):
    """A token with all claims of an access token, but of type refresh, is refused too."""
    for token in (ada.refresh, forged(ada, type="refresh")):
        assert reason(bearer(api, token)) == "invalid"
    assert reason(api.post("/auth/refresh", json={"refreshToken": ada.access})) == "invalid"
    assert api.get("/users/me", ada).status_code == 200


PUBLIC = ["GET /products", "POST /users", "POST /auth/login", "POST /auth/refresh", "POST /auth/logout",
          "POST /auth/password-reset", "POST /auth/password-reset/confirm"]  # fmt: skip


@pytest.mark.parametrize("route", PUBLIC)
def test_a_bad_token_is_refused_on_public_routes_too(api, ada, clock, route):
    """Before the body is read; so is an expired one."""
    method, path = route.split()
    assert reason(api(method, path, headers={"Authorization": "Bearer x"})) == "invalid"
    clock.advance(901)
    assert reason(api(method, path, ada)) == "expired"


def test_a_token_expires_after_its_15_minutes(api, ada, clock):
    clock.advance(890)
    assert api.get("/users/me", ada).status_code == 200
    clock.advance(11)
    assert reason(api.get("/users/me", ada)) == "expired"
