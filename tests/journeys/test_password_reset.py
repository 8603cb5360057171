"""A forgotten password: requesting a reset, the mail, setting a new one with its token."""

import time

import pytest

from backend.infrastructure.ids import new_id
from tests.at_once import at_once
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.waiting import wait_until

NEW = "another good password"
HALF_AN_HOUR = 30 * 60


@pytest.fixture
def mailbox(settings):
    return Mailbox(settings.database_path.parent / "outbox")


def ask(api, email):
    return api.post("/auth/password-reset", json={"email": email})


def confirm(api, token, password=NEW):
    return api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": password})


def all_delivered(api):
    """Whether every request has been looked up, every mail was sent, and the relay has nothing more to write."""
    with api.app.database.snapshot() as tx:
        return not tx.rows("SELECT 1 FROM deliveries")


def log_in(api, email, password=NEW):
    return api.post("/auth/login", json={"email": email, "password": password}).status_code


def is_refused(answer):
    """Whether the token, and only the token, was wrong."""
    code, details = answer.json["error"]["code"], answer.json["error"]["details"]
    return (answer.status_code, code, details.keys()) == (422, "VALIDATION_ERROR", {"token"})


def test_known_and_unknown_addresses_are_answered_alike(api, admin, ada, grace):
    """202 with `{}`, for a deactivated and a deleted user too."""
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    answers = [ask(api, email) for email in (ada.email, "ADA@example.com", grace.email, "nobody@example.com")]
    for answer in answers:
        assert (answer.status_code, answer.json["data"]) == (202, {})
        assert {**answer.headers, "X-Request-ID": ""} == {**answers[0].headers, "X-Request-ID": ""}


def parted(answer):
    """Status, body and headers of an answer, without what differs in every answer."""
    body = {name: part for name, part in answer.json.items() if name != "meta"}
    return answer.status_code, body, {**answer.headers, "X-Request-ID": ""}


def test_a_busy_database_answers_alike_for_known_and_unknown_addresses(make_api, ada, outsider):
    api = make_api(busy_timeout_seconds=1)
    wait_until(lambda: all_delivered(api))
    with outsider.locked():
        known, unknown = (parted(ask(api, email)) for email in (ada.email, "nobody@example.com"))
    assert known == unknown
    assert known[0] == 503


def test_the_same_statements_run_for_every_address_before_the_answer(work, make_api, admin, ada, grace):
    """For a known, unknown and deactivated one, and one that has got its three mails. So the time is the same, too."""
    api = make_api()
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    for _ in range(4):
        ask(api, ada.email)
    wait_until(lambda: all_delivered(api))
    api.app.relay.stop()  # what it does comes after the answer
    ask(api, "first@example.com")  # opens a connection
    done = []
    for email in (ada.email, "eve@example.com", grace.email, "nobody@example.com"):
        answer, seen = work.statements_of(lambda email=email: ask(api, email))
        assert answer.status_code == 202
        done.append([sql.strip() for sql in seen])
    assert any(sql.startswith("INSERT") for sql in done[0])
    assert done == [done[0]] * 4


@pytest.mark.parametrize("email", [None, 5, "", "nobody", f"{'a' * 250}@b.de"])
def test_an_invalid_address_is_refused(api, email):
    answer = ask(api, email)
    assert (answer.status_code, answer.json["error"]["details"].keys()) == (422, {"email"})


def test_only_active_users_get_mail(api, admin, ada, grace, mailbox):
    """Ada's request is the last, and hers is the only mail: to her address as typed at sign-up."""
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    for email in (grace.email, "nobody@example.com"):
        ask(api, email)
    ask(api, "ADA@EXAMPLE.COM")
    assert mailbox.next_after(set()).startswith(f"To: {ada.email}\n")


def test_only_the_owner_can_read_the_mails_in_files(api, ada, mailbox):
    """Folder and files admit no other user of the machine."""
    mailbox.reset_token(api, ada.email)
    (file,) = mailbox.folder.iterdir()
    assert (mailbox.folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_outside_of_development_no_mail_is_written_to_a_file(make_api, mailbox):
    api = make_api(development=False)
    ada = api.sign_up("Ada")
    assert ask(api, ada.email).status_code == 202
    assert not mailbox.folder.exists()


def test_a_reset_sets_the_password_and_ends_every_login(api, ada, grace, mailbox):
    """204; the new password logs in, the old one does not; earlier tokens of this user alone are revoked."""
    device = api.log_in(ada.email)
    answer = confirm(api, mailbox.reset_token(api, ada.email))
    assert (answer.status_code, answer.data) == (204, b"")
    assert (log_in(api, ada.email), log_in(api, ada.email, PASSWORD)) == (200, 401)
    for person in (ada, device):
        refreshed = api.post("/auth/refresh", json={"refreshToken": person.refresh})
        for refused in (api.get("/users/me", person), refreshed):
            assert (refused.status_code, refused.json["error"]["details"]) == (401, {"reason": "revoked"})
    assert api.get("/users/me", grace).status_code == 200


def test_a_request_for_a_reset_changes_nothing_yet(api, ada, mailbox):
    mailbox.reset_token(api, ada.email)
    assert api.get("/users/me", ada).status_code == 200
    assert log_in(api, ada.email, PASSWORD) == 200


def test_a_token_works_once(api, ada, mailbox):
    token = mailbox.reset_token(api, ada.email)
    assert confirm(api, token).status_code == 204
    assert is_refused(confirm(api, token, "a third password"))
    assert log_in(api, ada.email) == 200


def test_of_two_uses_at_once_one_counts(api, ada, mailbox):
    token = mailbox.reset_token(api, ada.email)
    passwords = ["first new password", "other new password"]
    answers = at_once([lambda new=new: confirm(api, token, new) for new in passwords])
    assert sorted(answer.status_code for answer in answers) == [204, 422]
    assert [log_in(api, ada.email, new) == 200 for new in passwords] == [a.status_code == 204 for a in answers]


def test_a_weak_password_does_not_use_the_token(api, ada, mailbox):
    token = mailbox.reset_token(api, ada.email)
    for bad in ("short", "password1", ada.email):
        assert confirm(api, token, bad).json["error"]["details"].keys() == {"newPassword"}
    assert confirm(api, token).status_code == 204


@pytest.mark.parametrize(("age", "good"), [(HALF_AN_HOUR - 5, True), (HALF_AN_HOUR, False), (7 * 86_400, False)])
def test_a_token_is_valid_for_half_an_hour(api, ada, mailbox, clock, age, good):
    token = mailbox.reset_token(api, ada.email)
    clock.advance(age)
    answer = confirm(api, token)
    assert answer.status_code == 204 if good else is_refused(answer)


@pytest.mark.parametrize(("age", "status"), [(HALF_AN_HOUR - 0.001, 204), (HALF_AN_HOUR, 422)])
def test_half_an_hour_is_exact_to_the_millisecond(api, ada, mailbox, clock, monkeypatch, age, status):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)  # the clock stands
    token = mailbox.reset_token(api, ada.email)
    clock.advance(age)
    assert confirm(api, token).status_code == status


def test_a_second_request_mails_the_same_token_again(api, ada, grace, mailbox, clock):
    """So a stranger's request does not void a mail under way. The lifetime stays, and another user's token differs."""
    token = mailbox.reset_token(api, ada.email)
    clock.advance(HALF_AN_HOUR - 60)
    assert mailbox.reset_token(api, ada.email.upper()) == token
    assert mailbox.reset_token(api, grace.email) != token
    clock.advance(60)
    assert is_refused(confirm(api, token))
    newer = mailbox.reset_token(api, ada.email)
    assert newer != token
    assert confirm(api, newer).status_code == 204


def test_a_token_that_was_used_does_not_go_out_again(api, ada, mailbox):
    token = mailbox.reset_token(api, ada.email)
    assert confirm(api, token).status_code == 204
    newer = mailbox.reset_token(api, ada.email)
    assert newer != token
    assert confirm(api, newer, "a third password").status_code == 204


def resets_mailed(api, mailbox):
    wait_until(lambda: all_delivered(api))
    return sum("Subject: Reset your password" in mail for mail in mailbox.mails())


def test_a_mailbox_gets_three_reset_mails_an_hour(api, ada, grace, mailbox, clock):
    """However often they are requested and in whichever case. Each answer is 202, and other mailboxes get theirs."""
    spellings = [
        ada.email,
        ada.email.upper(),
        ada.email.title(),
        f" {ada.email} ",
        "aDA@example.com",
        "ada@EXAMPLE.com",
    ]
    answers = [ask(api, spelling) for _ in range(4) for spelling in spellings]
    assert {(answer.status_code, answer.text.partition("meta")[0]) for answer in answers} == {(202, '{"data":{},"')}
    assert resets_mailed(api, mailbox) == 3
    ask(api, grace.email)
    assert resets_mailed(api, mailbox) == 4
    clock.advance(3590)
    ask(api, ada.email)
    assert resets_mailed(api, mailbox) == 4
    clock.advance(20)
    ask(api, ada.email)
    assert resets_mailed(api, mailbox) == 5


def test_a_mailbox_gets_no_more_for_an_address_that_passes_from_user_to_user(api, mailbox):
    """The mailbox counts, not the user, because a user can take an address that is not the user's own."""
    for number, email in enumerate(("victim@example.com", "VICTIM@example.com", "Victim@Example.com")):
        body = {"email": email, "password": PASSWORD, "name": "Mallory"}
        assert api.post("/users", json=body).status_code == 201
        user = api.log_in(email)
        for _ in range(2):
            ask(api, "Victim@example.com")
        wait_until(lambda: all_delivered(api))
        moved = {"email": f"mallory-{number}@example.com", "currentPassword": PASSWORD}
        assert api.patch("/users/me", user, moved).status_code == 200
    assert resets_mailed(api, mailbox) == 3


@pytest.mark.parametrize("act", ["deactivation", "deletion"])
def test_the_token_of_a_deactivated_or_deleted_user_is_void(api, admin, ada, mailbox, act):
    """Also after the user is activated again."""
    token, path = mailbox.reset_token(api, ada.email), f"/users/{ada.id}"
    api.delete(path, admin) if act == "deletion" else api.patch(path, admin, {"active": False})
    assert is_refused(confirm(api, token))
    api.patch(path, admin, {"active": True})
    assert is_refused(confirm(api, token))


def test_forged_and_other_tokens_are_refused(api, ada, mailbox):
    """422 `details.token` for another id or signature, parts of the token, a JWT; the true token stays valid."""
    token = mailbox.reset_token(api, ada.email)
    reset_id, _, signature = token.partition(".")
    forged = [
        f"{new_id()}.{signature}", f"{reset_id}.{signature[::-1]}", f"{reset_id}.{signature[:32]}", f"{reset_id}.",
        f".{signature}", reset_id, signature, f"{token}00", f"{token}.", f"{token}\0", f"x{token}", ada.access,
        f"{reset_id}.{signature.upper()}", f"{reset_id}. {signature}", f"{reset_id}.{signature[:2]} {signature[2:]}",
        f"{token}\n", ada.refresh, f"{reset_id}.{'zz' * 32}", f"{reset_id}.{'é' * 64}", "garbage", "é",
    ]  # fmt: skip
    assert [one for one in forged if not is_refused(confirm(api, one))] == []
    assert confirm(api, token).status_code == 204


@pytest.mark.parametrize("token", [None, 5, "", ["a"], "x" * 5000])
def test_a_token_is_a_string(api, token):
    assert is_refused(confirm(api, token))


@pytest.mark.parametrize("change", ["password", "e-mail"])
def test_a_mailed_token_ends_with_the_password_or_the_address_it_was_for(api, ada, mailbox, change):
    token = mailbox.reset_token(api, ada.email)
    if change == "password":
        body = {"currentPassword": PASSWORD, "newPassword": "yet another good one"}
        assert api.post("/auth/password", ada, body).status_code == 204
    else:
        body = {"email": "new@example.com", "currentPassword": PASSWORD}
        assert api.patch("/users/me", ada, body).status_code == 200
    assert is_refused(confirm(api, token))
