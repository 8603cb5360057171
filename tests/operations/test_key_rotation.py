"""The recipe that rotates JWT_SECRETS, on real servers that follow each other on one listener."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import PASSWORD, Person
from tests.mail_server import MailServer, mail_server
from tests.production.gunicorn_server import Server
from tests.production.real_service import Reply, call, service
from tests.production.steady_clients import SteadyClients
from tests.waiting import wait_until

OLD, NEW = "the-old-secret-which-has-over-32-bytes", "the-new-secret-which-has-over-32-bytes"
ADA, GRACE, LIN = USERS = ("ada@example.com", "grace@example.com", "lin@example.com")
INVALID = (401, {"reason": "invalid"})


class Issued(NamedTuple):
    """What a server has signed: the tokens of a login of Ada, a cursor of hers, the reset link in a user's mail."""

    ada: Person
    cursor: str
    link: str


class Operator:
    """Starts the servers, one after the other, as a service manager does that keeps the listener open."""

    def __init__(self, folder: Path, mails: MailServer, listener: socket.socket) -> None:
        self._folder, self._mails, self._listener = folder, mails, listener

    @contextlib.contextmanager
    def server(self, *secrets: str) -> Iterator[Server]:
        environment: dict[str, Any] = {
            "listener": self._listener, "bind": "fd://3", "JWT_SECRETS": ",".join(secrets),
            "SMTP_URL": f"smtp://127.0.0.1:{self._mails.server_address[1]}",
            "PASSWORD_RESET_URL": "https://example.org/reset#{token}",
        }  # fmt: skip
        with service(self._folder / "-".join(secrets), self._folder / "app.db", **environment) as server:
            server.address = self._listener.getsockname()
            yield server
            server.process.terminate()
            assert server.process.wait(60) == 0

    def issued(self, server: Server, link_to: str) -> Issued:
        ada = log_in(server)
        cursor = call(server, "GET", "/accounts?limit=1", ada).body["meta"]["pagination"]["nextCursor"]
        return Issued(ada, cursor, self.link(server, link_to))

    def link(self, server: Server, email: str) -> str:
        """The token in the link that is mailed to the user now."""
        before = len(self._links_to(email))
        assert call(server, "POST", "/auth/password-reset", json_={"email": email}).status == 202
        wait_until(lambda: len(self._links_to(email)) > before)
        return self._links_to(email)[-1]

    def _links_to(self, email: str) -> list[str]:
        mails = [mail.partition("https://example.org/reset#") for mail in self._mails.mails if f"To: {email}" in mail]
        return [rest.strip() for _, link, rest in mails if link]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with mail_server() as mails, socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield Operator(tmp_path, mails, listener)


@contextlib.contextmanager
def no_request_lost(address: Any) -> Iterator[None]:
    """Clients ask while the block runs. Each of their requests is answered, on a connection of its own."""
    clients = SteadyClients(address, 4, keep=False, path=b"/healthz")
    with clients.running():
        yield
    assert (clients.statuses, clients.lost, clients.refused) == ({200}, [], 0)


def log_in(server: Server) -> Person:
    pair = call(server, "POST", "/auth/login", json_={"email": ADA, "password": PASSWORD}).data
    return Person("", "", pair["accessToken"], pair["refreshToken"])


def profile(server: Server, by: Person) -> Reply:
    return call(server, "GET", "/users/me", by)


def refreshed(server: Server, by: Person) -> Reply:
    return call(server, "POST", "/auth/refresh", json_={"refreshToken": by.refresh})


def page(server: Server, by: Person, cursor: str) -> Reply:
    return call(server, "GET", f"/accounts?limit=1&cursor={cursor}", by)


def set_password(server: Server, link: str) -> Reply:
    return call(server, "POST", "/auth/password-reset/confirm", json_={"token": link, "newPassword": "a new harbour"})


def refusal(reply: Reply) -> tuple[int, Any]:
    return reply.status, reply.body["error"]["details"]


def test_secrets_are_rotated_without_a_lost_request_or_login(operator: Operator) -> None:
    """The new one first, then the old one goes. Both servers of a change verify what the earlier one has signed."""
    with contextlib.ExitStack() as stack:
        with operator.server(OLD) as server:
            for email in USERS:
                user = {"email": email, "password": PASSWORD, "name": "A user"}
                assert call(server, "POST", "/users", json_=user).status == 201
            for _ in range(2):
                assert call(server, "POST", "/accounts", log_in(server), {"currency": "EUR"}).status == 201
            used, unused = operator.issued(server, link_to=GRACE), operator.issued(server, link_to=LIN)
            stack.enter_context(no_request_lost(server.address))
        with operator.server(NEW, OLD) as server:
            assert profile(server, used.ada).status == 200
            assert page(server, used.ada, used.cursor).status == 200
            assert refreshed(server, used.ada).status == 200
            assert set_password(server, used.link).status == 204
            new = operator.issued(server, link_to=LIN)
        with operator.server(NEW) as server:
            assert refusal(profile(server, unused.ada)) == refusal(refreshed(server, unused.ada)) == INVALID
            assert refusal(page(server, new.ada, unused.cursor))[1].keys() == {"cursor"}
            assert profile(server, new.ada).status == 200
            assert page(server, new.ada, new.cursor).status == 200
            assert refusal(set_password(server, unused.link))[1].keys() == {"token"}
            assert set_password(server, new.link).status == 204
            assert refreshed(server, new.ada).status == 200
            stack.close()
