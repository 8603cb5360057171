"""Mail: what is sent to users when something has happened.

By SMTP_URL, with STARTTLS where it is offered; without it, in development, into files of the folder `outbox` beside the
database. In either case the log says that there was a mail, and nothing that is in it. The relay may call twice: the
message id tells a repetition, and a file is overwritten by it.
"""

import logging
import os
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backend.domain import Event, User
from backend.infrastructure.private_files import make_folder
from backend.services.credentials import UserCredentials
from backend.services.events import Subscriber
from backend.settings import Settings

TIMEOUT_SECONDS = 5.0  # of each step of the conversation

log = logging.getLogger(__name__)


class Mailer:
    """Sends reset tokens. Thread-safe."""

    def __init__(self, settings: Settings, credentials: UserCredentials) -> None:
        self._url = settings.smtp_url
        host = urlsplit(settings.smtp_url or "").hostname or "localhost"
        self._sender = settings.mail_from or f"no-reply@{host}"
        self._reset_text = settings.password_reset_url or "Token: {token}"
        self._folder = settings.database_path.parent / "outbox" if settings.development else None
        self._credentials = credentials

    def subscriber(self) -> Subscriber:
        return Subscriber("mailer", self.deliver, wants=lambda event: event.name == "password.reset_requested")

    def deliver(self, event: Event) -> None:
        """Mail the user his token, unless he can use none any more. Raises OSError or smtplib.SMTPException."""
        found = self._credentials.requested_reset(event.resource_id)
        if found is None:
            return
        user, token = found
        message = self._message(event, user, "Reset your password")
        message.set_content(
            "A new password was requested for your account. If you did not request it, ignore this mail.\n\n"
            f"{self._reset_text.replace('{token}', token)}\n",
            cte="7bit",  # which breaks no line, and so no link
        )
        if self._url:
            send(self._url, message)
        elif self._folder:
            keep(message, self._folder / f"{event.id}.txt")
        log.info("mail to user %s: password reset", user.id)

    def _message(self, event: Event, user: User, subject: str) -> EmailMessage:
        """A message without content. Its headers, too, are the same whenever the event is delivered again."""
        message = EmailMessage()
        message["To"] = user.email
        message["From"] = self._sender
        message["Subject"] = subject
        message["Date"] = datetime.fromtimestamp(event.created_at // 1000, UTC)
        message["Message-ID"] = f"<{event.id}@{self._sender.rpartition('@')[2]}>"
        return message


def keep(message: EmailMessage, path: Path) -> None:
    """Write the message to a file in a folder that only the owner may read."""
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(message.as_bytes())


def send(url: str, message: EmailMessage) -> None:
    """Hand the message to the server at `url`: smtp://[user:password@]host:port or smtps://…"""
    parts = urlsplit(url)
    host, user = parts.hostname or "", unquote(parts.username or "")
    tls = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_SECONDS, context=tls)
        if parts.scheme == "smtps"
        else smtplib.SMTP(host, parts.port or 25, timeout=TIMEOUT_SECONDS)
    ) as server:
        server.ehlo_or_helo_if_needed()
        if server.has_extn("starttls"):
            server.starttls(context=tls)
        if user:
            server.login(user, unquote(parts.password or ""))
        server.send_message(message)
