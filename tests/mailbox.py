"""The mails that a development server writes to files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


@dataclass(frozen=True)
class Mailbox:
    """The folder `outbox` beside the database."""

    folder: Path

    def mails(self) -> set[str]:
        """The texts of all mails that are completely written."""
        return {text for file in self.folder.glob("*") if (text := file.read_text("utf-8")).endswith("\n")}

    def next_after(self, before: set[str], subject: str = "") -> str:
        """Wait for a mail (about `subject`) that is not in `before`; its text."""

        def new() -> list[str]:
            return [mail for mail in self.mails() - before if f"Subject: {subject}" in mail]

        wait_until(lambda: bool(new()))
        (mail,) = new()
        return mail

    def next_mail(self, api: Any, email: str) -> str:
        """Request a password reset; the text of the mail."""
        before = self.mails()
        assert api.post("/auth/password-reset", json={"email": email}).status_code == 202
        return self.next_after(before, "Reset your password")

    def reset_token(self, api: Any, email: str) -> str:
        """Request a password reset; the token in the mail."""
        return self.next_mail(api, email).split("Token: ")[1].strip()
