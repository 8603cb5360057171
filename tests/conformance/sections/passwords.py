"""Passwords: changes, and resets that reveal no user."""

import unicodedata

from tests.conformance.checks import check, expect, expect_data, expect_reason, expect_wrong
from tests.conformance.client import PASSWORD, UNKNOWN_ID, Client

DECOMPOSED = "cafe\u0301 noir et blanc"
OTHER = "a louder harbour"
LONG = "long " * 20  # bcrypt alone would see 72 bytes of it


@check
def a_change_ends_the_other_logins(api: Client) -> None:
    """A new password ends every other login; the one that changed it goes on with the tokens it has."""
    person = api.sign_up("Changer")
    other = api.log_in(person.email)
    change = {"currentPassword": PASSWORD, "newPassword": OTHER}
    expect_data(api.post("/auth/password", person, change), 204)
    expect_data(api.get("/users/me", person))
    expect_data(api.post("/auth/refresh", json_={"refreshToken": person.refresh}))
    expect_reason(api.get("/users/me", other), "revoked")
    expect_reason(api.post("/auth/login", json_={"email": person.email, "password": PASSWORD}), "credentials")
    expect_data(api.post("/auth/login", json_={"email": person.email, "password": OTHER}))


@check
def a_wrong_current_password(api: Client) -> None:
    """A wrong current password is 401 `credentials`, and nothing changes."""
    change = {"currentPassword": "wrong one", "newPassword": OTHER}
    expect_reason(api.post("/auth/password", api.grace, change), "credentials")
    expect_data(api.post("/auth/login", json_={"email": api.grace.email, "password": PASSWORD}))


@check
def every_character_counts(api: Client) -> None:
    """Every character of a password counts, also those after the 72nd byte."""
    email = api.address("Long")
    expect_data(api.post("/users", json_={"email": email, "password": LONG + "a", "name": "Long"}), 201)
    expect_reason(api.post("/auth/login", json_={"email": email, "password": LONG + "b"}), "credentials")
    expect_data(api.post("/auth/login", json_={"email": email, "password": LONG + "a"}))


@check
def passwords_are_normalised_and_not_trimmed(api: Client) -> None:
    """A password is NFC-normalised, and never trimmed."""
    email = api.address("Accent")
    expect_data(api.post("/users", json_={"email": email, "password": f" {DECOMPOSED} ", "name": "Accent"}), 201)
    composed = unicodedata.normalize("NFC", DECOMPOSED)
    expect_data(api.post("/auth/login", json_={"email": email, "password": f" {composed} "}))
    expect_reason(api.post("/auth/login", json_={"email": email, "password": composed}), "credentials")


@check
def a_reset_reveals_no_user(api: Client) -> None:
    """A reset is 202 with `{}` whether or not the address is known."""
    for email in (api.grace.email, api.address("stranger")):
        answer = api.post("/auth/password-reset", json_={"email": email})
        expect("the answer's data", {}, expect_data(answer, 202))


@check
def a_bad_reset_token(api: Client) -> None:
    """A bad reset token is 422 `details.token`."""
    for token in ("x", f"{UNKNOWN_ID}.{'0' * 64}"):
        answer = api.post("/auth/password-reset/confirm", json_={"token": token, "newPassword": OTHER})
        expect_wrong(answer, "token")
