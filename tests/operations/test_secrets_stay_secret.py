"""No secret reaches the log, the database or a backup: a journey over every route, then a search for each one used.

The journey has all that a service knows: passwords, tokens, reset links, idempotency keys, and the secrets of its own
settings. Requests succeed, are refused, and fail unexpectedly, with the log at DEBUG.
"""

import base64
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import jwt
import pytest

from tests.cli.running import run
from tests.conftest import Person
from tests.every_route import VALID
from tests.mail_server import MailServer, mail_server
from tests.production.raw_client import connect
from tests.production.real_service import Caller, Reply, service
from tests.waiting import wait_until
from tests.webhook_receiver import Receiver, receiving

LINK = "https://example.org/reset#"
MAIL_PASSWORD = "the mail/password+"
WEBHOOK_KEY = b"the key that signs each webhook!"
HOOK = "/hooks/a-secret-path-of-the-receiver"
SETTINGS = {
    "JWT_SECRETS": 'a signing "secret" of more than 32 bytes,another secret of more than 32 bytes',
    "WEBHOOK_SECRET": f"whsec_{base64.b64encode(WEBHOOK_KEY).decode()}",
    "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
    "PASSWORD_RESET_URL": f"{LINK}{{token}}",
    "REFRESH_GRACE_SECONDS": "0",
    "LOG_LEVEL": "DEBUG",
}


def spellings(secret: bytes) -> set[bytes]:
    """The secret as it is, and within JSON, a URL, hexadecimal digits or base64 of a longer text."""
    text = secret.decode("utf-8", "replace")
    found = {secret, json.dumps(text)[1:-1].encode(), secret.hex().encode()}
    found |= {quote(secret, safe="").encode(), quote_plus(secret).encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # bytes; the first and the last characters depend on what is around the secret
            bits = 8 * (before + len(secret))
            found.add(encode(bytes(before) + secret)[-(-8 * before // 6) : bits // 6])
    return found


def found_in(data: bytes, secrets: set[bytes]) -> set[bytes]:
    return {secret for secret in secrets if any(spelling in data for spelling in spellings(secret))}


class Journey:
    """Requests to a running service. `secrets` has every secret that was sent to it or came from it."""

    def __init__(self, caller: Caller, mails: MailServer) -> None:
        self.address = (caller.http.host, caller.http.port)
        self.secrets: set[bytes] = set()
        self._caller, self._mails, self._keys = caller, mails, 0

    def secret(self, text: str) -> str:
        self.secrets.add(text.encode())
        return text

    def ask(self, call: str, by: Person | None = None, body: Any = None) -> Reply:
        """One request, with a new Idempotency-Key."""
        self._keys += 1
        key = self.secret(f"a-secret-key/{self._keys}+of=lin@example.com")
        reply = self._caller.call(*call.split(), by, body, key)
        if isinstance(reply.body, dict) and "accessToken" in (reply.body.get("data") or {}):
            for name in ("accessToken", "refreshToken"):
                self._keep_token(reply.data[name])
        return reply

    def id_of(self, call: str, by: Person | None = None, body: Any = None) -> str:
        reply = self.ask(call, by, body)
        assert reply.status in (200, 201), (call, reply)
        return str(reply.data["id"])

    def log_in(self, email: str, password: str) -> Person:
        pair = self.ask("POST /auth/login", None, {"email": email, "password": password}).data
        return Person("", email, pair["accessToken"], pair["refreshToken"])

    def reset_token(self, email: str) -> str:
        """The token in the link that is mailed to the user now."""
        before = len(self._links_to(email))
        assert self.ask("POST /auth/password-reset", None, {"email": email}).status == 202
        wait_until(lambda: len(self._links_to(email)) > before)
        token = self.secret(self._links_to(email)[-1])
        self.secrets |= {token.partition(".")[2].encode(), bytes.fromhex(token.partition(".")[2])}
        return token

    def _links_to(self, email: str) -> list[str]:
        mails = [mail.partition(LINK) for mail in self._mails.mails if f"To: {email}\n" in mail]
        return [rest.strip() for _, link, rest in mails if link]

    def _keep_token(self, token: str) -> None:
        claims = jwt.decode(token, options={"verify_signature": False})
        self.secrets |= {token.encode(), token.rpartition(".")[2].encode(), claims["jti"].encode()}
        self.secrets.add(bytes.fromhex(claims["jti"]))


@pytest.fixture
def outside() -> Iterator[tuple[MailServer, Receiver, dict[str, str]]]:
    """A mail server, a receiver of webhooks, and the settings of a service that uses them."""
    with mail_server() as mails, receiving() as (receiver, port):
        smtp = f"smtp://postman:{quote(MAIL_PASSWORD, safe='')}@127.0.0.1:{mails.server_address[1]}"
        yield mails, receiver, SETTINGS | {"SMTP_URL": smtp, "WEBHOOK_URLS": f"http://127.0.0.1:{port}{HOOK}"}


def visit_every_route(journey: Journey, root: Person) -> tuple[Person, str]:
    """One success at each route, at the least. Returns a login and its password."""
    ask, secret = journey.ask, journey.secret
    email, first, second = "lin@example.com", secret('first "p/w+ü\\'), secret("second pass=word&")
    lin_id = journey.id_of("POST /users", None, {"email": email, "password": first, "name": "Lin"})
    lin = journey.log_in(email, first)
    product = {"sku": "TEA", "name": "Tea", "unitPrice": 250, "currency": "EUR", "stock": 10}
    tea = journey.id_of("POST /products", root, product)
    purse = journey.id_of("POST /accounts", lin, {"currency": "EUR"})
    other = journey.id_of("POST /accounts", root, {"currency": "EUR"})
    deposit = journey.id_of(f"POST /accounts/{purse}/deposits", root, {"amount": 5000})
    placing = {"accountId": purse, "items": [{"productId": tea, "quantity": 1}]}
    orders = [journey.id_of("POST /orders", lin, placing) for _ in range(2)]
    session = ask("GET /auth/sessions", journey.log_in(email, first)).data[0]["id"]
    for call, by, body in [
        ("GET //healthz", None, None),
        ("GET //readyz", None, None),
        ("GET //openapi.json", None, None),
        ("GET /users?include=orders", root, None),
        ("GET /users/me", lin, None),
        (f"GET /users/{lin_id}", lin, None),
        (f"PATCH /users/{lin_id}", root, {"name": "Lin L."}),
        ("GET /products", None, None),
        (f"GET /products/{tea}", None, None),
        (f"PATCH /products/{tea}", root, {"stock": 9}),
        ("GET /accounts", lin, None),
        (f"GET /accounts/{purse}", lin, None),
        (f"POST /accounts/{purse}/withdrawals", root, {"amount": 5}),
        (f"GET /accounts/{purse}/transactions?limit=1", lin, None),
        ("POST /transfers", lin, {"fromAccountId": purse, "toAccountId": other, "amount": 5}),
        (f"GET /transactions/{deposit}", lin, None),
        ("GET /orders", lin, None),
        (f"GET /orders/{orders[0]}", lin, None),
        (f"POST /orders/{orders[0]}/cancel", lin, None),
        (f"POST /orders/{orders[1]}/fulfil", root, None),
        ("GET /audit", root, None),
        (f"DELETE /auth/sessions/{session}", lin, None),
        ("POST /auth/logout", None, {"refreshToken": journey.log_in(email, first).refresh}),
        ("POST /auth/refresh", None, {"refreshToken": lin.refresh}),
        ("PATCH /users/me", lin, {"email": "lin@example.org", "currentPassword": first}),
        ("POST /auth/password", lin, {"currentPassword": first, "newPassword": second}),
    ]:
        reply = ask(call, by, body)
        assert reply.status < 300, (call, reply)
    email, third = "lin@example.org", secret("third pass%20word")
    confirmation = {"token": journey.reset_token(email), "newPassword": third}
    assert ask("POST /auth/password-reset/confirm", None, confirmation).status == 204
    assert ask("DELETE /auth/sessions", journey.log_in(email, third)).status == 204
    gone = {"email": "gone@example.com", "password": secret("gone password!"), "name": "Gone"}
    gone_id = journey.id_of("POST /users", None, gone)
    journey.log_in(gone["email"], gone["password"])
    journey.reset_token(gone["email"])
    assert ask(f"DELETE /users/{gone_id}", root).status == 204
    return journey.log_in(email, third), third


def be_refused(journey: Journey, lin: Person, password: str) -> None:
    """Requests with secrets in them that are wrong: by the client, and in the eyes of the server."""
    ask, secret = journey.ask, journey.secret
    wrong, short, cut = secret("a wrong password!"), secret("sh0rt!?"), secret("password in a cut body")
    reset = journey.reset_token(lin.email)
    used = ask("POST /auth/refresh", None, {"refreshToken": lin.refresh}).status
    forged = Person("", "", secret(lin.access[:-6] + "AAAAAA"), "")
    replies = [
        ask("POST /auth/login", None, {"email": lin.email, "password": wrong}),
        ask("POST /auth/login", None, {"email": "nobody@example.com", "password": wrong}),
        ask("POST /auth/login", None, {"email": lin.email, "password": password, "pin": short}),
        ask("POST /users", None, {"email": lin.email, "password": short, "name": "Lin"}),
        ask("POST /users", None, {"email": lin.email, "password": password, "name": "Lin"}),
        ask("POST /auth/password", lin, {"currentPassword": wrong, "newPassword": secret("another password!")}),
        ask("POST /auth/password-reset/confirm", None, {"token": reset, "newPassword": short}),
        ask("POST /auth/password-reset/confirm", None, {"token": secret(reset[:-2] + "00"), "newPassword": password}),
        ask("GET /users/me", forged),
        ask(f"GET /products?token={reset}&cursor={lin.access}", lin),
        ask("POST /auth/refresh", None, {"refreshToken": lin.access}),
        ask("POST /auth/refresh", None, {"refreshToken": lin.refresh}),  # used before: the login ends
        ask("GET /users/me", lin),
    ]
    assert used == 200 and all(400 <= reply.status < 500 for reply in replies), replies
    body = b'{"password": "%b' % cut.encode()
    token, length = lin.access.encode(), b"Content-Length: %d\r\n" % len(body)
    head = b"Host: localhost\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n%b" % (token, length)
    for line, more in [
        (b"POST /api/v1/users HTTP/1.1", b""),
        (b"POST /api/v1/users?token=%b HTTP/1.1" % reset.encode(), b"Expect: 200-ok\r\n"),
        (b"POST /api/v1/users#%b HTTP/1.1" % reset.encode(), b"Transfer-Encoding: gzip\r\n"),
        (b"GET http://lin:%b@localhost/ HTTP/1.1" % reset.encode(), b""),
        (b"GET /api/v1/users/me HTTP/1.1", b"Cookie: %b\r\n" % (token * 30)),
    ]:
        with connect(journey.address) as client:
            assert client.send(b"%b\r\n%b%b\r\n%b" % (line, head, more, body)).read_answer().status >= 400


def fail(journey: Journey, lin: Person, password: str, database: Path) -> None:
    """Requests with secrets in them that fail unexpectedly, in the middle of their work."""
    reset = journey.reset_token(lin.email)
    with contextlib.closing(sqlite3.connect(database)) as sqlite:
        sqlite.execute("DROP TABLE deliveries")
        sqlite.execute("DROP TABLE refresh_tokens")
    new = {"email": "new@example.com", "password": journey.secret("a new user's pass"), "name": "New"}
    replies = [
        journey.ask("POST /users", None, new),
        journey.ask("POST /auth/login", None, {"email": lin.email, "password": password}),
        journey.ask("POST /auth/refresh", None, {"refreshToken": lin.refresh}),
        journey.ask("POST /auth/password", lin, {"currentPassword": password, "newPassword": "in the midst of it"}),
        journey.ask("POST /auth/password-reset/confirm", None, {"token": reset, "newPassword": "in the midst of it"}),
        journey.ask("POST /accounts", lin, {"currency": "EUR"}),
    ]
    journey.secret("in the midst of it")
    assert [reply.status for reply in replies] == [500] * len(replies), replies


def deliveries_fail(journey: Journey, mails: MailServer, receiver: Receiver, root: Person, log: Path) -> None:
    """A mail and a webhook that are refused; the log says so."""
    mails.refuse, receiver.answer = "AUTH", lambda *_: (500, {})
    assert journey.ask("POST /auth/password-reset", None, {"email": root.email}).status == 202
    wait_until(lambda: all(said in log.read_text() for said in ("SMTPAuthenticationError", "receiver answered 500")))
    mails.refuse, receiver.answer = "", lambda *_: (204, {})


def lines_of(log: Path) -> list[dict[str, Any]]:
    text = log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n")].splitlines()]


def test_log_database_and_backup_hold_no_secret(tmp_path: Path, database_path: Path, outside: Any) -> None:
    mails, receiver, settings = outside
    log, backup, root_password = tmp_path / "log", tmp_path / "backup.db", "the first admin's password"
    assert run(database_path, "create-admin", "root@example.com", ADMIN_PASSWORD=root_password).returncode == 0
    kept = ("--keep-alive", "600")
    with service(log, database_path, *kept, **settings) as server, Caller(server.address, seconds=60) as caller:
        journey = Journey(caller, mails)
        journey.secrets |= secrets_of(settings) | {root_password.encode()}
        root = journey.log_in("root@example.com", root_password)
        lin, password = visit_every_route(journey, root)
        deliveries_fail(journey, mails, receiver, root, log)
        be_refused(journey, lin, password)
        lin = journey.log_in(lin.email, password)
        with contextlib.closing(sqlite3.connect(database_path)) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        target.close()
        fail(journey, lin, password, database_path)
        wait_until(lambda: sum(line.get("status") == 500 for line in lines_of(log)) >= 6)
        files = {file.name: file.read_bytes() for file in (log, backup, database_path, Path(f"{database_path}-wal"))}
    assert {name: found for name, data in files.items() if (found := found_in(data, journey.secrets))} == {}
    lines = lines_of(log)
    served = {f"{line['method']} {line['route']}" for line in lines if line.get("status", 500) < 400}
    assert {route for route in VALID if "/api/" in route} <= served
    assert sum("Traceback" in line.get("exception", "") for line in lines) >= 6
    assert any(line["level"] == "DEBUG" for line in lines)
    assert all(b"lin@example.org" in files[name] for name in ("backup.db", "app.db-wal"))  # the right place to look


def secrets_of(settings: dict[str, str]) -> set[bytes]:
    first, second = settings["JWT_SECRETS"].split(",")
    texts = (first, second, settings["WEBHOOK_SECRET"].partition("_")[2], MAIL_PASSWORD, HOOK)
    return {text.encode() for text in texts} | {WEBHOOK_KEY}


@pytest.mark.parametrize(
    "written",
    [
        lambda secret: secret,
        lambda secret: json.dumps({"text": secret.decode()}).encode(),
        lambda secret: quote(secret, safe="").encode(),
        lambda secret: quote_plus(secret).encode(),
        lambda secret: secret.hex().encode(),
        lambda secret: base64.b64encode(b"lin:" + secret),
        lambda secret: base64.b64encode(b"grace:" + secret + b"\n"),
        lambda secret: base64.urlsafe_b64encode(b"ada: " + secret + b"???"),
    ],
)
def test_the_search_finds_a_secret_however_it_is_written(written: Callable[[bytes], bytes]) -> None:
    secret = 'first "p/w+ü\\'.encode()
    assert found_in(b"before " + written(secret) + b" after", {secret, b"not there"}) == {secret}
