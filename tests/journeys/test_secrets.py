"""Secrets: neither the database nor the log holds a usable one, and signing secrets are rotated without a break."""

import sqlite3
from contextlib import closing

import jwt
import pytest

from backend.infrastructure.keyring import Keyring
from tests.conftest import PASSWORD, SECRET
from tests.mailbox import Mailbox

NEXT = "the-next-secret-which-has-over-32-bytes"
NEW_PASSWORD = "another good password"


@pytest.fixture
def mailbox(settings):
    return Mailbox(settings.database_path.parent / "outbox")


def refresh(api, token):
    return api.post("/auth/refresh", json={"refreshToken": token})


def profile(api, token):
    return api.get("/users/me", headers={"Authorization": f"Bearer {token}"})


def header(token):
    return jwt.get_unverified_header(token)


def confirm(api, token):
    return api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": NEW_PASSWORD})


def test_neither_database_nor_log_holds_a_usable_secret(api, ada, outsider, mailbox, log_file, caplog):
    """After logins, a refresh, a change and a reset, no file has a token, its id, a password or a signing key in it."""
    caplog.set_level("DEBUG")
    pair = refresh(api, ada.refresh).json["data"]
    pair_again = refresh(api, ada.refresh).json["data"]
    change = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    assert api.post("/auth/password", ada, change).status_code == 204
    reset = mailbox.reset_token(api, ada.email)
    assert confirm(api, reset).status_code == 204
    pending = mailbox.reset_token(api, ada.email)

    tokens = [
        ada.access,
        ada.refresh,
        *(p[name] for p in (pair, pair_again) for name in ("accessToken", "refreshToken")),
    ]
    ids = [jwt.decode(token, options={"verify_signature": False})["jti"] for token in tokens]
    signatures = [token.rpartition(".")[2] for token in (*tokens, reset, pending)]
    texts = [*tokens, *ids, *signatures, reset, pending, PASSWORD, NEW_PASSWORD, SECRET]
    secrets = [text.encode() for text in texts] + [bytes.fromhex(text) for text in (*ids, *signatures[-2:])]

    written = outsider.stored() + log_file.read_bytes() + caplog.text.encode()
    assert ada.id.encode() in written and ada.email.encode() in written  # it is the right place to look
    assert [secret for secret in secrets if secret in written] == []


def test_passwords_are_stored_as_bcrypt_hashes_only(api, ada):
    with api.app.database.snapshot() as tx:
        ((hashed,),) = tx.rows("SELECT password_hash FROM users")
    assert hashed.startswith("$2b$04$") and len(hashed) == 60


@pytest.mark.sqlite  # because a copy of its file is the simplest
def test_a_successor_cannot_be_computed_from_the_token_and_the_key(make_api, ada, settings, tmp_path):
    """It depends on a nonce of the first use: in a copy of the database the same token gets another successor."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(settings.database_path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    here, there = (refresh(make_api(database_path=path), ada.refresh) for path in (settings.database_path, copy))
    assert here.status_code == there.status_code == 200
    assert here.json["data"]["refreshToken"] != there.json["data"]["refreshToken"]


def test_a_second_secret_still_verifies_and_the_first_one_signs(make_api):
    """Earlier access, refresh and reset tokens stay valid; new tokens are signed with the new secret."""
    before, after = make_api(), make_api(jwt_secrets=(NEXT, SECRET))
    ada = before.sign_up("Ada")
    assert profile(after, ada.access).status_code == 200
    pair = refresh(after, ada.refresh).json["data"]
    for token in (pair["accessToken"], pair["refreshToken"]):
        assert header(token)["kid"] == Keyring([NEXT]).signing_id != header(ada.access)["kid"]
    assert profile(after, pair["accessToken"]).status_code == 200
    assert refresh(after, pair["refreshToken"]).status_code == 200


def test_a_reset_token_of_the_second_secret_is_valid(make_api, mailbox):
    before, after = make_api(), make_api(jwt_secrets=(NEXT, SECRET))
    token = mailbox.reset_token(before, before.sign_up("Ada").email)
    assert confirm(after, token).status_code == 204


def test_the_grace_gives_the_same_successor_across_a_rotation_of_secrets(make_api):
    """Used before the restart with the new secret and presented again after it: key and times are those of the first
    use.
    """
    before, after = make_api(), make_api(jwt_secrets=(NEXT, SECRET))
    ada = before.sign_up("Ada")
    successor = refresh(before, ada.refresh).json["data"]["refreshToken"]
    assert refresh(after, ada.refresh).json["data"]["refreshToken"] == successor


def test_a_successor_whose_secret_was_withdrawn_cannot_be_given_again(make_api, clock):
    """Within the grace it is 401 `invalid`, no reuse, and ends no login.

    After the grace it is reuse. Happens after a return to the former secrets, or on a worker that does not have the new
    one yet.
    """
    former, newer = make_api(), make_api(jwt_secrets=(NEXT, SECRET))
    ada = former.sign_up("Ada")
    successor = refresh(newer, ada.refresh).json["data"]["refreshToken"]
    for token in (ada.refresh, successor):
        answer = refresh(former, token)
        assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "invalid"})
    assert refresh(newer, ada.refresh).json["data"]["refreshToken"] == successor
    clock.advance(11)
    assert refresh(former, ada.refresh).json["error"]["details"] == {"reason": "revoked"}
    assert refresh(newer, successor).json["error"]["details"] == {"reason": "revoked"}


def test_a_secret_that_was_withdrawn_verifies_nothing(make_api, mailbox):
    """Its tokens are `invalid` because their `kid` is unknown, a reset token is 422, and no login ends."""
    before, after = make_api(), make_api(jwt_secrets=(NEXT,))
    ada = before.sign_up("Ada")
    token = mailbox.reset_token(before, ada.email)
    for answer in (profile(after, ada.access), refresh(after, ada.refresh)):
        assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "invalid"})
    assert confirm(after, token).json["error"]["details"].keys() == {"token"}
    assert profile(before, ada.access).status_code == refresh(before, ada.refresh).status_code == 200


def test_without_secrets_one_is_made_once_for_all_workers(make_api, settings):
    """In a file beside the database that only its owner can read. Tokens stay valid after a restart."""
    first, second = make_api(jwt_secrets=()), make_api(jwt_secrets=())
    ada = first.sign_up("Ada")
    assert profile(second, ada.access).status_code == 200
    file = settings.database_path.parent / "jwt-secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_text().strip()) >= 32
