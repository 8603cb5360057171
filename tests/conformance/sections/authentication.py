"""Authentication: sign-up, login, and which tokens are good."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.conformance.checks import Broken, check, check_each, expect, expect_data, expect_error, expect_reason
from tests.conformance.client import PASSWORD, Client, Person, times


def decoded(part: str) -> dict[str, Any]:
    """The header or the claims of a token."""
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def encoded(values: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).rstrip(b"=").decode()


def with_header(token: str, **changes: Any) -> str:
    """The token with another header, and its old signature."""
    header, claims, signature = token.split(".")
    return f"{encoded(decoded(header) | changes)}.{claims}.{signature}"


def with_claims(token: str, **changes: Any) -> str:
    """The token with other claims, and its old signature."""
    header, claims, signature = token.split(".")
    return f"{header}.{encoded(decoded(claims) | changes)}.{signature}"


FORGED: dict[str, Callable[[Person], str]] = {
    "no signature": lambda ada: with_header(ada.access, alg="none").rpartition(".")[0] + ".",
    "another algorithm": lambda ada: with_header(ada.access, alg="RS256"),
    "an unknown key": lambda ada: with_header(ada.access, kid="x"),
    "a role of one's own": lambda ada: with_claims(ada.access, roles=["admin", "user"]),
    "a longer life": lambda ada: with_claims(ada.access, exp=2**40),
    "a cut signature": lambda ada: ada.access[:-4],
    "a changed signature": lambda ada: ada.access[:-6] + ("AAAAAA" if ada.access[-6:] != "AAAAAA" else "BBBBBB"),
    "a refresh token": lambda ada: ada.refresh,
    "a word": lambda ada: "x",
}


@check
def sign_up_makes_a_user(api: Client) -> None:
    """Sign-up answers 201 with a User of role `user`, and never shows a password or its hash."""
    body = {"email": api.address("New"), "password": PASSWORD, "name": "New"}
    answer = api.post("/users", json_=body)
    user = expect_data(answer, 201)
    keys = {"id", "email", "name", "roles", "active", "version", "createdAt", "updatedAt"}
    expect("the fields of a User", keys, set(user))
    values = (user["email"], user["name"], user["roles"], user["active"])
    expect("its values", (body["email"], "New", ["user"], True), values)


@check
def an_address_is_taken_once(api: Client) -> None:
    """An e-mail that is taken, compared case-insensitively, is 409 `details.email`."""
    body = {"email": api.ada.email.upper(), "password": PASSWORD, "name": "Other"}
    expect_error(api.post("/users", json_=body), 409, "CONFLICT", "email")


@check
def an_address_at_the_same_moment(api: Client) -> None:
    """Of five sign-ups with one e-mail at the same moment, one makes a user."""
    body = {"email": api.address("Race"), "password": PASSWORD, "name": "Race"}
    statuses = sorted(answer.status for answer in times(5, api.post, "/users", json_=body))
    expect("POST /users, five at once", [201, 409, 409, 409, 409], statuses)


@check
def a_login_gives_a_pair(api: Client) -> None:
    """Login answers `{accessToken, refreshToken, tokenType: "Bearer", expiresIn}`; letter case of the e-mail does not
    matter."""
    answer = api.post("/auth/login", json_={"email": api.ada.email.title(), "password": PASSWORD})
    pair = expect_data(answer)
    expect("its keys", {"accessToken", "refreshToken", "tokenType", "expiresIn"}, set(pair))
    expect("its type", "Bearer", pair["tokenType"])


@check
def an_access_token(api: Client) -> None:
    """An access token is a JWT (HS256, `kid` in the header) with the claims of the contract."""
    header, claims = (decoded(part) for part in api.ada.access.split(".")[:2])
    expect("alg", "HS256", header["alg"])
    expect("kid is in the header", True, "kid" in header)
    names = {"sub", "email", "roles", "type", "ver", "sid", "iss", "aud", "iat", "exp", "jti"}
    expect("its claims", names, set(claims))
    expect("sub and type", (api.ada.id, "access"), (claims["sub"], claims["type"]))


@check_each({"capitals": "BEARER", "small letters": "bearer"})
def the_scheme(api: Client, scheme: str) -> None:
    """The scheme `Bearer` is case-insensitive."""
    expect_data(api.get("/users/me", headers={"Authorization": f"{scheme} {api.ada.access}"}))


@check
def a_missing_token(api: Client) -> None:
    """A request without a token to a route that needs one is 401 `missing`, with `WWW-Authenticate: Bearer`."""
    answer = api.get("/users/me")
    expect_reason(answer, "missing")
    if not answer.headers.get("WWW-Authenticate", "").startswith("Bearer"):
        raise Broken(f"{answer.request}: WWW-Authenticate", "Bearer …", answer.headers.get("WWW-Authenticate"))


@check_each(FORGED)
def a_forged_token(api: Client, forge: Callable[[Person], str]) -> None:
    """A token of the wrong type, algorithm or signature is 401 `invalid`."""
    token = forge(api.ada)
    expect_reason(api.get("/users/me", headers={"Authorization": f"Bearer {token}"}), "invalid")


@check
def another_scheme(api: Client) -> None:
    """Another scheme than Bearer is 401 `invalid`."""
    expect_reason(api.get("/users/me", headers={"Authorization": "Basic YTpi"}), "invalid")


@check
def a_bad_token_on_a_public_route(api: Client) -> None:
    """A bad token is 401 on public routes too."""
    expect_reason(api.get("/products", headers={"Authorization": "Bearer x"}), "invalid")


@check
def an_access_token_does_not_refresh(api: Client) -> None:
    """An access token is no refresh token."""
    expect_reason(api.post("/auth/refresh", json_={"refreshToken": api.ada.access}), "invalid")


@check
def a_failed_login_reveals_no_user(api: Client) -> None:
    """Login answers the same for an unknown e-mail and a wrong password: 401 `credentials`."""
    emails = (api.ada.email, api.address("stranger"))
    answers = [api.post("/auth/login", json_={"email": email, "password": "wrong one"}) for email in emails]
    for answer in answers:
        expect_reason(answer, "credentials")
    expect("the error of an unknown e-mail", *(answer.json["error"] for answer in answers))
