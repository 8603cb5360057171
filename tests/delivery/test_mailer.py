"""Mail: a reset token or a notice goes to its user, encrypted, and to no other mailbox."""

import logging
import re
from email import message_from_string
from email.policy import default
from urllib.parse import quote

import pytest

from backend.delivery import mailer, relay
from backend.repositories import outbox
from tests.conftest import PASSWORD
from tests.mail_server import mail_server
from tests.mailbox import Mailbox
from tests.waiting import wait_until

NEW = "an altogether different pass phrase"


@pytest.fixture
def server():
    with mail_server() as running:
        yield running


def url(server, scheme="smtp", user=""):
    return f"{scheme}://{user}127.0.0.1:{server.server_address[1]}"


def ask(api, person):
    assert api.post("/auth/password-reset", json={"email": person.email}).status_code == 202


def change_password(api, person, current=PASSWORD, new=NEW):
    body = {"currentPassword": current, "newPassword": new}
    assert api.post("/auth/password", person, body).status_code == 204


def change_email(api, person, email):
    assert api.patch("/users/me", person, {"email": email, "currentPassword": PASSWORD}).status_code == 200


def told(server):
    """Recipient and subject of the mails, in order."""
    messages = [message_from_string(mail) for mail in server.mails]
    return [(message["To"], message["Subject"]) for message in messages]


PASSWORD_CHANGED, EMAIL_CHANGED = "Your password was changed", "Your e-mail address was changed"


def token_in(mail):
    return message_from_string(mail, policy=default).get_content().split("Token: ")[1].strip()


def owed(api):
    with api.app.database.snapshot() as tx:
        return tx.rows("SELECT 1 FROM deliveries WHERE subscriber IN ('mailer', 'resets') AND due_at IS NOT NULL")


def deliver_again(api):
    """Deliver as if the relay had been killed before it could settle."""
    with api.app.database.transaction() as tx:
        tx.run("""INSERT INTO deliveries (seq, subscriber, tries, due_at)
                  SELECT seq, 'mailer', 0, 0 FROM outbox WHERE name = 'password.reset_requested'""")


def test_a_token_that_was_mailed_sets_a_new_password(make_api, server):
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: len(server.mails) == 1)
    message = message_from_string(server.mails[0], policy=default)
    assert (message["To"], message["From"]) == (ada.email, "no-reply@127.0.0.1")
    body = {"token": token_in(server.mails[0]), "newPassword": NEW}
    assert api.post("/auth/password-reset/confirm", json=body).status_code == 204
    api.log_in(ada.email, NEW)


def test_the_credentials_of_the_url_are_sent_to_the_server(make_api, server):
    """User and password are percent-encoded in the URL."""
    api = make_api(smtp_url=url(server, user=f"{quote('mail@example.com', safe='')}:{quote('p@ss:w/rd', safe='')}@"))
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: len(server.mails) == 1)
    assert "\0mail@example.com\0p@ss:w/rd" in server.log


def check_headers(mail, person, sender):
    """Check what RFC 5322 demands: each header once, and one message."""
    message = message_from_string(mail, policy=default)
    names = [name for name, _ in message.items()]
    assert len(names) == len(set(names))
    assert (message["From"], message["To"], message["Subject"]) == (sender, person.email, "Reset your password")
    assert re.fullmatch(rf"<[0-9a-f-]{{36}}@{re.escape(sender.partition('@')[2])}>", message["Message-ID"])
    assert message["Date"].datetime.tzinfo is not None
    return message["Date"].datetime.timestamp()


def test_a_mail_has_a_date_a_sender_and_an_id(make_api, server, clock):
    """The date is that of the request, in UTC, also if the mail is sent later."""
    clock.advance(86_400)
    ada, began = (api := make_api(smtp_url=url(server))).sign_up("Ada"), int(clock())
    ask(api, ada)
    wait_until(lambda: len(server.mails) == 1)
    assert began <= check_headers(server.mails[0], ada, "no-reply@127.0.0.1") <= clock()


@pytest.mark.parametrize(("mail_from", "sender"), [(None, "no-reply@localhost"), ("a@shop.example", "a@shop.example")])
def test_a_mail_in_a_file_has_them_too(make_api, settings, clock, mail_from, sender):
    ada = (api := make_api(mail_from=mail_from)).sign_up("Ada")
    began, mail = int(clock()), Mailbox(settings.database_path.parent / "outbox").next_mail(api, ada.email)
    assert began <= check_headers(mail, ada, sender) <= clock()


def test_the_sender_can_be_set(make_api, server):
    """In the header and in the SMTP envelope."""
    ada = (api := make_api(smtp_url=url(server), mail_from="accounts@shop.example")).sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: len(server.mails) == 1)
    check_headers(server.mails[0], ada, "accounts@shop.example")
    assert "FROM:<accounts@shop.example>" in " ".join(server.log)


def test_the_mail_holds_the_link_that_is_set(make_api, settings):
    """With the token inserted, on one line, in place of the bare token."""
    mailbox = Mailbox(settings.database_path.parent / "outbox")
    before, after = "https://shop.example/{x}/%7B?next=/a&token=", "&from=mail#reset={"
    api = make_api(password_reset_url=f"{before}{{token}}{after}")
    ada = api.sign_up("Ada")
    content = message_from_string(mailbox.next_mail(api, ada.email), policy=default).get_content()
    assert "Token: " not in content
    [link] = [line for line in content.splitlines() if line.startswith("https:")]
    assert link.startswith(before) and link.endswith(after)
    token = link.removeprefix(before).removesuffix(after)
    body = {"token": token, "newPassword": NEW}
    assert api.post("/auth/password-reset/confirm", json=body).status_code == 204


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_the_connection_is_encrypted_where_possible(make_api, certificate_of, scheme):
    """By STARTTLS, before credentials are sent, if the server has it; by TLS from the beginning for `smtps`."""
    with mail_server(certificate_of("IP:127.0.0.1"), implicit=scheme == "smtps") as server:
        api = make_api(smtp_url=url(server, scheme, "ada:secret@"))
        ask(api, api.sign_up("Ada"))
        wait_until(lambda: len(server.mails) == 1)
        before = server.log[: server.log.index("TLS")]
        assert [said.split()[0] for said in before] == (["ehlo", "STARTTLS"] if scheme == "smtp" else [])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_with_a_wrong_certificate_gets_nothing(make_api, certificate_of, caplog, scheme):
    with mail_server(certificate_of("DNS:other.example"), implicit=scheme == "smtps") as server:
        api = make_api(smtp_url=url(server, scheme))
        ask(api, api.sign_up("Ada"))
        wait_until(lambda: "SSLCertVerificationError; try 1" in caplog.text)
        assert server.mails == []


@pytest.mark.parametrize("user", ["", "ada:secret@"])
def test_a_server_on_another_machine_without_starttls_gets_nothing(make_api, server, clock, monkeypatch, caplog, user):
    """Neither password nor token nor recipient. The mail is sent once the server has STARTTLS."""
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(mailer, "is_loopback", lambda address: address != "127.0.0.1")  # which stands for elsewhere
    api = make_api(smtp_url=url(server, user=user))
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: clock.advance(1) or "try 3" in caplog.text)
    assert {said.split()[0].lower() for said in server.log} == {"ehlo", "quit"}
    assert "the mail server offers no STARTTLS; try 1, to be tried again" in caplog.text
    monkeypatch.undo()
    wait_until(lambda: clock.advance(1) or server.mails)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("10.0.0.1", False), ("192.168.0.1", False),
        ("169.254.0.1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
        ("93.184.216.34", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_only_loopback_addresses_are_this_machine(address, loopback):
    assert mailer.is_loopback(address) is loopback


HOSTILE = [
    "=?utf-8?q?ceo?=@bank.example", "=?utf-8?q?v=40b=2Eex=3E=2C?=a@evil.example",
    "=?utf-8?q?a=0D=0ABcc=3A_c=40d.ex?=@e.de",
    "ada%bank.example@evil.example", "bank.example!ada@evil.example", "'ada'@evil.example", "-oQ/tmp/x@evil.example",
    "`{token}|$HOME`@evil.example", "#&*+/^_~@evil.example", "%s%d{0}@evil.example", f"{'x' * 64}@{'d' * 60}.de",
]  # fmt: skip


@pytest.mark.parametrize("address", HOSTILE)
def test_a_mail_goes_to_the_address_as_it_stands(make_api, server, address):
    """No part of it is parsed as another address, neither in the envelope nor in the header.

    Some of these addresses can no longer be registered, but an older database may hold them.
    """
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    with api.app.database.transaction() as tx:
        tx.run("UPDATE users SET email = :email WHERE id = :id", email=address, id=ada.id)
    change_password(api, ada)
    wait_until(lambda: len(server.mails) == 1)
    assert [said for said in server.log if said.lower().startswith("rcpt")] == [f"rcpt TO:<{address}>"]
    assert server.mails[0].startswith(f"To: {address}\nFrom: no-reply@127.0.0.1\nSubject: Your password was changed\n")
    assert "Bcc" not in dict(message_from_string(server.mails[0]))


def test_a_mail_that_is_refused_is_sent_later(make_api, server, clock, monkeypatch, caplog):
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.02)
    server.refuse = "RCPT"
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: "SMTPRecipientsRefused; try 1" in caplog.text)
    server.refuse = ""
    wait_until(lambda: clock.advance(1) or not owed(api))
    assert len(server.mails) == 1
    assert ada.email not in caplog.text


def test_each_new_password_is_followed_by_a_notice(make_api, server):
    """Changed or reset. The notice holds no token, and a refused change has none."""
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    change_password(api, ada)
    body = {"currentPassword": PASSWORD, "newPassword": "a third pass phrase"}
    assert api.post("/auth/password", ada, body).status_code == 401
    ask(api, ada)
    wait_until(lambda: len(server.mails) == 2)
    body = {"token": token_in(server.mails[1]), "newPassword": "a third pass phrase"}
    assert api.post("/auth/password-reset/confirm", json=body).status_code == 204
    wait_until(lambda: len(server.mails) == 3)
    subjects = [PASSWORD_CHANGED, "Reset your password", PASSWORD_CHANGED]
    assert told(server) == [(ada.email, subject) for subject in subjects]
    assert all("Token" not in server.mails[n] and "If you did not" in server.mails[n] for n in (0, 2))


@pytest.mark.parametrize("by_admin", [False, True])
def test_a_change_of_the_address_is_notified_to_the_old_one(make_api, server, by_admin):
    """Also if an admin has changed it. A changed name and a refused change have no notice."""
    api = make_api(smtp_url=url(server))
    admin, ada = api.admin(), api.sign_up("Ada")
    api.patch("/users/me", ada, {"name": "Countess"})
    assert api.patch("/users/me", ada, {"email": admin.email, "currentPassword": PASSWORD}).status_code == 409
    if by_admin:
        assert api.patch(f"/users/{ada.id}", admin, {"email": "new@example.com"}).status_code == 200
    else:
        change_email(api, ada, "new@example.com")
    wait_until(lambda: not owed(api))
    assert told(server) == [(ada.email, EMAIL_CHANGED)]
    assert "new@example.com" not in server.mails[0]


def test_a_notice_goes_to_the_address_of_its_time_however_late(make_api, server, clock, monkeypatch, caplog):
    """So a thief who changes the password and then the address does not get the notice of the first change."""
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.02)
    server.refuse = "MAIL"
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    change_password(api, ada)
    wait_until(lambda: "try 1" in caplog.text)
    assert api.patch("/users/me", ada, {"email": "thief@example.com", "currentPassword": NEW}).status_code == 200
    server.refuse = ""
    wait_until(lambda: clock.advance(1) or not owed(api))
    assert told(server) == [(ada.email, PASSWORD_CHANGED), (ada.email, EMAIL_CHANGED)]


def test_three_notices_of_a_kind_an_hour_reach_a_mailbox(make_api, server, clock):
    """Otherwise a user with an address that belongs to another person could flood that mailbox."""
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    for current, new in [(PASSWORD, NEW), (NEW, PASSWORD)] * 3:
        change_password(api, ada, current, new)
    for _ in range(5):
        change_email(api, ada, "else@example.com")
        change_email(api, ada, ada.email.title())
    wait_until(lambda: not owed(api))
    kinds = [(ada.email, PASSWORD_CHANGED), (ada.email, EMAIL_CHANGED), ("else@example.com", EMAIL_CHANGED)]
    assert {
        kind: [(to.lower(), subject) for to, subject in told(server)].count(kind) for kind in kinds
    } == dict.fromkeys(kinds, 3)
    clock.advance(3600)
    change_password(api, api.log_in(ada.email))
    wait_until(lambda: len(server.mails) == 10)


def test_the_address_of_a_deleted_user_is_nowhere_and_gets_no_mail(make_api, server, outsider, caplog):
    """Not in mails that are owed or were sent. Its placeholder gets no mail either."""
    server.refuse = "MAIL"
    api = make_api(smtp_url=url(server))
    admin, ada = api.admin(), api.sign_up("Ada")
    change_email(api, ada, "second@example.com")
    change_password(api, ada)
    ask(api, ada)
    api.post("/auth/password-reset", json={"email": "second@example.com"})
    wait_until(lambda: "try 1" in caplog.text)
    assert api.delete(f"/users/{ada.id}", admin).status_code == 204
    back = {"email": "back@example.com", "active": True}
    assert api.patch(f"/users/{ada.id}", admin, back).status_code == 200
    server.refuse = ""
    wait_until(lambda: not owed(api))
    assert server.mails == []
    left = str(outsider.contents())
    assert ada.email not in left and "second@example.com" not in left


def test_mailed_addresses_are_deleted_with_their_events(make_api, server):
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    change_email(api, ada, "new@example.com")

    def addresses():
        with api.app.database.transaction() as tx:
            outbox.prune(tx, tx.now, 0, 100)
            return tx.rows("SELECT email FROM mails")

    wait_until(lambda: not addresses())


def test_no_webhook_and_no_event_holds_an_address(make_api, server):
    """Nothing that receivers and admins can read holds the old address."""
    api = make_api(smtp_url=url(server))
    ada = api.sign_up("Ada")
    change_email(api, ada, "new@example.com")
    ask(api, ada)
    wait_until(lambda: not owed(api))
    with api.app.database.snapshot() as tx:
        told_to_others = str(tx.rows("SELECT * FROM outbox") + tx.rows("SELECT * FROM audit"))
        assert tx.rows("SELECT * FROM reset_requests") == []
    assert "@example.com" not in told_to_others


def test_a_token_that_is_no_longer_valid_is_not_mailed(make_api, server, clock, caplog):
    """Too old, or its user is deleted."""
    api = make_api(smtp_url=url(server))
    admin, people = api.admin(), [api.sign_up(name) for name in ("Old", "Gone", "New")]
    server.refuse = "MAIL"
    for person in people:
        ask(api, person)
    wait_until(lambda: caplog.text.count("SMTPSenderRefused; try 1") == 3)
    with api.app.database.transaction() as tx:
        ((old_id,),) = tx.rows("SELECT id FROM password_resets WHERE user_id = :id", id=people[0].id)
        tx.run("UPDATE password_resets SET created_at = created_at - 1800001 WHERE id = :id", id=old_id)
    api.patch(f"/users/{people[1].id}", admin, {"active": False})
    ask(api, people[2])
    server.refuse = ""
    wait_until(lambda: clock.advance(0.5) or not owed(api))
    assert {message_from_string(mail)["To"] for mail in server.mails} == {people[2].email}
    (token,) = {token_in(mail) for mail in server.mails}  # the same, twice
    assert api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": NEW}).status_code == 204


def test_a_token_goes_to_no_former_address_however_late(make_api, server, standing_clock, caplog):
    """A user leaves a mailbox that a thief reads, and asks for a reset before the mail server is back."""
    api = make_api(smtp_url=url(server))
    server.refuse = "MAIL"
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: "try 1" in caplog.text)
    change_email(api, ada, "new@example.com")
    ada.email = "new@example.com"
    ask(api, ada)
    wait_until(lambda: len(owed(api)) == 3)
    server.refuse = ""
    wait_until(lambda: standing_clock.advance(0.5) or not owed(api))
    assert told(server) == [("ada@example.com", EMAIL_CHANGED), ("new@example.com", "Reset your password")]


def test_a_repeated_mail_has_the_same_id(make_api, server):
    """The relay may deliver twice; a mail program then shows one mail."""
    api = make_api(smtp_url=url(server))
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: not owed(api))
    deliver_again(api)
    wait_until(lambda: len(server.mails) == 2)
    first, second = (message_from_string(mail)["Message-ID"] for mail in server.mails)
    assert first is not None
    assert first == second


def test_without_a_server_a_developer_finds_the_mail_in_a_file(make_api, settings, caplog):
    """Only its owner can read it. The log says that there was a mail, and not what is in it."""
    caplog.set_level(logging.INFO)
    api = make_api()
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: not owed(api))
    deliver_again(api)
    wait_until(lambda: not owed(api))
    (file,) = (settings.database_path.parent / "outbox").iterdir()
    token = token_in(file.read_text())
    assert f"\nToken: {token}\n" in file.read_text()  # unbroken
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert f"mail to user {ada.id}: password reset" in caplog.text
    assert token not in caplog.text
    assert token.partition(".")[0] not in caplog.text
    assert api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": NEW}).status_code == 204


def test_in_production_without_a_server_only_the_log_has_a_trace(make_api, settings, caplog):
    caplog.set_level(logging.INFO)
    api = make_api(development=False)
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: f"mail to user {ada.id}: password reset" in caplog.text)
    assert not (settings.database_path.parent / "outbox").exists()


def test_an_unknown_address_gets_no_mail(make_api, server):
    api = make_api(smtp_url=url(server))
    assert api.post("/auth/password-reset", json={"email": "nobody@example.com"}).status_code == 202
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: len(server.mails) == 1)
    assert PASSWORD not in server.mails[0]
