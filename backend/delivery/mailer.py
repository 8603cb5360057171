"""Mail to users about their account: reset tokens, and notices of changes.

Mails go to the server at SMTP_URL, encrypted by TLS or STARTTLS; only to a server on this machine unencrypted, too.
If SMTP_URL is not set, development writes them to files in the folder `outbox` beside the database. The log has
the kind of each mail and the user's id, but not the text. A mail may be sent twice, because the relay delivers at least
once: both have the same Message-ID, and a file is overwritten.

The message is built as text, and the user's address is the only recipient of the SMTP envelope. No library parses the
headers: `email` would decode an encoded word in an address, which could yield other addresses.
"""

import ipaddress
import logging
import os
import smtplib
import ssl
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from backend.domain import Event
from backend.infrastructure.database import Database
from backend.infrastructure.private_files import make_folder
from backend.repositories import mails
from backend.services.credentials import UserCredentials
from backend.services.events import DeliveryFailed, Subscriber
from backend.settings import Settings

TIMEOUT_SECONDS = 5.0  # for each step of the SMTP dialogue


class Template(NamedTuple):
    what: str  # for the log
    subject: str
    text: str


PASSWORD_CHANGED = Template(
    "password changed",
    "Your password was changed",
    "The password of your account was changed. If you did not change it, reset it at once, and tell us.",
)
EMAIL_CHANGED = Template(
    "e-mail changed",
    "Your e-mail address was changed",
    "The e-mail address of your account was changed. If you did not change it, tell us at once.",
)
TEMPLATES = {
    "password.reset_requested": Template(
        "password reset",
        "Reset your password",
        "A new password was requested for your account. If you did not request it, ignore this mail.",
    ),
    "password.changed": PASSWORD_CHANGED,
    "password.reset": PASSWORD_CHANGED,
    "user.updated": EMAIL_CHANGED,  # this and the next one only if the e-mail has changed
    "user.deactivated": EMAIL_CHANGED,
}

log = logging.getLogger(__name__)


class Mailer:
    """Sends mails. Thread-safe."""

    def __init__(self, settings: Settings, database: Database, credentials: UserCredentials) -> None:
        self._url = settings.smtp_url
        host = urlsplit(settings.smtp_url or "").hostname or "localhost"
        self._sender = settings.mail_from or f"no-reply@{host}"
        self._reset_text = settings.password_reset_url or "Token: {token}"
        self._folder = settings.database_path.parent / "outbox" if settings.development else None
        self._database = database
        self._credentials = credentials

    def subscriber(self) -> Subscriber:
        return Subscriber("mailer", self.deliver, wants=_has_mail)

    def deliver(self, event: Event) -> None:
        """Send the mail that follows the event, if there is one. A token goes to the user's present address only.

        Raises DeliveryFailed, OSError or smtplib.SMTPException.
        """
        with self._database.read() as tx:
            address = mails.address_of(tx, event.id)
        if not address:
            return
        what, subject, text = TEMPLATES[event.name]
        if event.name == "password.reset_requested":
            token = self._credentials.open_token(event.resource_id, address)
            if token is None:
                return
            text = f"{text}\n\n{self._reset_text.replace('{token}', token)}"
        message = self._message(event, address, subject, text)
        if self._url:
            send(self._url, self._sender, address, message)
        elif self._folder:
            keep(message, self._folder / f"{event.id}.txt")
        log.info("mail to user %s: %s", event.resource_id, what)

    def _message(self, event: Event, to: str, subject: str, text: str) -> str:
        """The mail as ASCII text (RFC 5322), the same for each delivery of the event."""
        date = format_datetime(datetime.fromtimestamp(event.created_at // 1000, UTC))
        headers = {
            "To": to, "From": self._sender, "Subject": subject, "Date": date,
            "Message-ID": f"<{event.id}@{self._sender.rpartition('@')[2]}>", "MIME-Version": "1.0",
            "Content-Type": 'text/plain; charset="us-ascii"', "Content-Transfer-Encoding": "7bit",
        }  # fmt: skip
        return "".join(f"{name}: {value}\n" for name, value in headers.items()) + f"\n{text}\n"


def _has_mail(event: Event) -> bool:
    """Whether a mail may follow the event. A change of a user has one only if the e-mail changed."""
    changed = event.payload.get("changed")
    return event.name in TEMPLATES and (not isinstance(changed, list) or "email" in changed)


def keep(message: str, path: Path) -> None:
    """Write the message to a file in a folder that only the owner may read."""
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(message)


def send(url: str, sender: str, to: str, message: str) -> None:
    """Send the message through the server at `url`: smtp://[user:password@]host:port or smtps://…

    Raises DeliveryFailed, before it sends credentials or the message, if the connection would not be encrypted.
    """
    parts = urlsplit(url)
    host, user = parts.hostname or "", unquote(parts.username or "")
    tls = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_SECONDS, context=tls)
        if parts.scheme == "smtps"
        else smtplib.SMTP(host, parts.port or 25, timeout=TIMEOUT_SECONDS)
    ) as server:
        if parts.scheme == "smtp":
            _encrypt(server, tls)
        if user:
            server.login(user, unquote(parts.password or ""))
        server.sendmail(sender, [to], message)


def _encrypt(server: smtplib.SMTP, tls: ssl.SSLContext) -> None:
    """Use STARTTLS if the server offers it. Raises DeliveryFailed if it does not and is on another machine."""
    server.ehlo_or_helo_if_needed()
    if server.has_extn("starttls"):
        server.starttls(context=tls)
    elif not (server.sock and is_loopback(server.sock.getpeername()[0])):
        raise DeliveryFailed("the mail server offers no STARTTLS")


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
