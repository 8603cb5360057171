"""Mail: a reset token goes to its user, and nowhere else."""

import logging
import re
from email import message_from_string
from email.policy import default
from urllib.parse import quote

import pytest

from backend.services import relay
from tests.conftest import PASSWORD
from tests.mail_server import mail_server
from tests.mailbox import Mailbox
from tests.processes.gunicorn_server import wait_until

NEW = "an altogether different pass phrase"


@pytest.fixture
def server():
    with mail_server() as running:
        yield running


def url(server, scheme="smtp", user=""):
    return f"{scheme}://{user}127.0.0.1:{server.server_address[1]}"


def ask(api, person):
    assert api.post("/auth/password-reset", json={"email": person.email}).status_code == 202


def token_in(mail):
    return message_from_string(mail, policy=default).get_content().split("Token: ")[1].strip()


def owed(api):
    with api.app.database.snapshot() as tx:
        return tx.rows("SELECT 1 FROM deliveries WHERE subscriber = 'mailer' AND due_at IS NOT NULL")


def deliver_again(api):
    """As if the relay had been killed before it could mark the mail."""
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


def test_the_server_is_told_who_we_are_if_it_wants_to_know(make_api, server):
    """User and password as the URL has them, percent-encoded."""
    api = make_api(smtp_url=url(server, user=f"{quote('mail@example.com', safe='')}:{quote('p@ss:w/rd', safe='')}@"))
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: len(server.mails) == 1)
    assert "\0mail@example.com\0p@ss:w/rd" in server.log


def check_headers(mail, person, sender):
    """What RFC 5322 demands, each once, and whatever makes the mail one message."""
    message = message_from_string(mail, policy=default)
    names = [name for name, _ in message.items()]
    assert len(names) == len(set(names))
    assert (message["From"], message["To"], message["Subject"]) == (sender, person.email, "Reset your password")
    assert re.fullmatch(rf"<[0-9a-f-]{{36}}@{re.escape(sender.partition('@')[2])}>", message["Message-ID"])
    assert message["Date"].datetime.tzinfo is not None
    return message["Date"].datetime.timestamp()


def test_a_mail_has_a_date_a_sender_and_an_id(make_api, server, clock):
    """The date is that of the request, in UTC, also when the mail goes out later."""
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
    """In the header and in what the server is told."""
    ada = (api := make_api(smtp_url=url(server), mail_from="accounts@shop.example")).sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: len(server.mails) == 1)
    check_headers(server.mails[0], ada, "accounts@shop.example")
    assert "FROM:<accounts@shop.example>" in " ".join(server.log)


def test_the_mail_holds_the_link_that_is_set(make_api, settings):
    """With the token in its place, in one piece, instead of the bare token."""
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
def test_what_is_said_is_encrypted_where_that_can_be(make_api, certificate_of, scheme):
    """By STARTTLS where it is offered, before anybody logs in; by TLS from the beginning where the URL says so."""
    with mail_server(certificate_of("IP:127.0.0.1"), implicit=scheme == "smtps") as server:
        api = make_api(smtp_url=url(server, scheme, "ada:secret@"))
        ask(api, api.sign_up("Ada"))
        wait_until(lambda: len(server.mails) == 1)
        before = server.log[: server.log.index("TLS")]
        assert [said.split()[0] for said in before] == (["ehlo", "STARTTLS"] if scheme == "smtp" else [])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_cannot_prove_its_name_gets_nothing(make_api, certificate_of, caplog, scheme):
    with mail_server(certificate_of("DNS:other.example"), implicit=scheme == "smtps") as server:
        api = make_api(smtp_url=url(server, scheme))
        ask(api, api.sign_up("Ada"))
        wait_until(lambda: "SSLCertVerificationError; try 1" in caplog.text)
        assert server.mails == []


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


def test_a_token_that_is_of_no_use_any_more_is_not_mailed(make_api, server, clock, caplog):
    """Used, voided by a newer request, too old, or its user gone: there is nothing to send."""
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
    (token,) = {token_in(mail) for mail in server.mails}  # the newer one, be it twice
    assert api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": NEW}).status_code == 204


def test_a_repeated_mail_has_the_same_id(make_api, server):
    """The relay may deliver twice; a mail program then shows it once."""
    api = make_api(smtp_url=url(server))
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: not owed(api))
    deliver_again(api)
    wait_until(lambda: len(server.mails) == 2)
    first, second = (message_from_string(mail)["Message-ID"] for mail in server.mails)
    assert first is not None
    assert first == second


def test_without_a_server_a_developer_finds_the_mail_in_a_file(make_api, settings, caplog):
    """That only its owner may read; the log says there was one, and not what was in it."""
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


def test_in_production_without_a_server_the_log_alone_tells(make_api, settings, caplog):
    caplog.set_level(logging.INFO)
    api = make_api(development=False)
    ada = api.sign_up("Ada")
    ask(api, ada)
    wait_until(lambda: f"mail to user {ada.id}: password reset" in caplog.text)
    assert not (settings.database_path.parent / "outbox").exists()


def test_an_unknown_address_is_mailed_nothing(make_api, server):
    api = make_api(smtp_url=url(server))
    assert api.post("/auth/password-reset", json={"email": "nobody@example.com"}).status_code == 202
    ask(api, api.sign_up("Ada"))
    wait_until(lambda: len(server.mails) == 1)
    assert PASSWORD not in server.mails[0]
