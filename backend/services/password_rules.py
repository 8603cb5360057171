"""Which passwords are refused because they would be guessed first (NIST SP 800-63B, section 3.1.1.2)."""

from functools import cache
from pathlib import Path

from backend.domain import fold

SERVICE = "Reference backend"
SUBSTITUTES = str.maketrans("@40$53", "aaosse")  # letters as guessing programs, too, replace them: P@ssw0rd


@cache
def common_passwords() -> frozenset[str]:
    """The shipped list, in lower case: those of zxcvbn-ts (MIT) and Django (BSD) that have 8 characters and more."""
    return frozenset((Path(__file__).parent / "common_passwords.txt").read_text(encoding="utf-8").split())


def weakness(password: str, email: str = "", name: str = "") -> str | None:
    """Why a user with this e-mail and name must not have the password, None if it will do.

    Compared without case; with the user's own words and the service's name also without spaces and punctuation.
    """
    folded, bare = fold(password), _bare(password)
    if not folded.strip():
        return "must not be blank"
    if {folded, folded.translate(SUBSTITUTES)} & common_passwords():
        return "is on the list of common passwords"
    if bare and bare == _bare(SERVICE):
        return "must not be the name of this service"
    if bare and bare in (_bare(email), _bare(email.partition("@")[0])):
        return "must not be the e-mail address or its first part"
    if bare and bare == _bare(name):
        return "must not be the name"
    return None


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, fold(text)))
