"""Mail: what is sent to users when something has happened."""

import logging
import os

from backend.domain import Event
from backend.infrastructure.database import Database
from backend.repositories import users
from backend.services.credentials import UserCredentials
from backend.settings import Settings

log = logging.getLogger(__name__)


class Mailer:
    """Sends reset tokens. Without SMTP the mail is logged without its token; in development it is a file as well."""

    def __init__(self, settings: Settings, database: Database, credentials: UserCredentials) -> None:
        self._folder = settings.database_path.parent / "outbox" if settings.development else None
        self._database = database
        self._credentials = credentials

    def on_event(self, event: Event) -> None:
        if event.name == "password.reset_requested":
            self._send_reset(event)

    def _send_reset(self, event: Event) -> None:
        with self._database.snapshot() as tx:
            user = users.by_id(tx, event.resource_id)
        if user is None:
            return
        log.info("mail to user %s: password reset", user.id)
        if self._folder is not None:
            reset_id = str(event.payload["resetId"])
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            token = self._credentials.reset_token(reset_id)
            text = f"To: {user.email}\nSubject: Reset your password\n\nToken: {token}\n"
            descriptor = os.open(self._folder / f"{event.id}.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
