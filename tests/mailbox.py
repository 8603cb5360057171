"""The mail that a development server writes to files, read as its receiver would."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mailbox:
    """The folder `outbox` beside the database."""

    folder: Path

    def mails(self) -> set[str]:
        """The texts of all mails that are there as a whole."""
        return {text for file in self.folder.glob("*") if (text := file.read_text("utf-8")).endswith("\n")}

    def next_after(self, before: set[str], subject: str = "") -> str:
        """The text of the one mail, or one about `subject`, that was not `before`: it may take a moment to arrive."""
        deadline = time.monotonic() + 10
        while not (new := {mail for mail in self.mails() - before if f"Subject: {subject}" in mail}):
            assert time.monotonic() < deadline, "no mail came"
            time.sleep(0.002)
        (mail,) = new
        return mail

    def next_mail(self, api: Any, email: str) -> str:
        """Ask for a new password, and the text of the mail that comes of it."""
        before = self.mails()
        assert api.post("/auth/password-reset", json={"email": email}).status_code == 202
        return self.next_after(before, "Reset your password")

    def reset_token(self, api: Any, email: str) -> str:
        """Ask for a new password, and what the mail says is the token."""
        return self.next_mail(api, email).split("Token: ")[1].strip()
