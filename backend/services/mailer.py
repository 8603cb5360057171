"""Mail: what is sent to users when something has happened.

By SMTP_URL, with STARTTLS where it is offered; without it, in development, into files of the folder `outbox` beside the
database. In either case the log says that there was a mail, and nothing that is in it. The relay may call twice: the
message id tells a repetition, and a file is overwritten by it.
"""

import logging
import os
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backend.domain import Event
from backend.services.credentials import UserCredentials
from backend.services.events import Subscriber
from backend.settings import Settings

TIMEOUT_SECONDS = 5.0  # of each step of the conversation

log = logging.getLogger(__name__)


class Mailer:
    """Sends reset tokens. Thread-safe."""

    def __init__(self, settings: Settings, credentials: UserCredentials) -> None:
        self._url = settings.smtp_url
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
        message = EmailMessage()
        message["To"] = user.email
        message["Subject"] = "Reset your password"
        message.set_content(
            f"Somebody, you we hope, wants a new password for your account.\n\nToken: {token}\n", cte="7bit"
        )
        if self._url:
            send(self._url, message, event.id)
        elif self._folder:
            keep(self._folder, message, event.id)
        log.info("mail to user %s: password reset", user.id)


def keep(folder: Path, message: EmailMessage, message_id: str) -> None:
    """Write the message to a file of the folder that only its owner may read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / f"{message_id}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(message.as_bytes())


def send(url: str, message: EmailMessage, message_id: str) -> None:
    """Hand the message to the server at `url`: smtp://[user:password@]host:port or smtps://…"""
    parts = urlsplit(url)
    host, user = parts.hostname or "", unquote(parts.username or "")
    message["From"] = user if "@" in user else f"no-reply@{host}"
    message["Message-ID"] = f"<{message_id}@{host}>"
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
