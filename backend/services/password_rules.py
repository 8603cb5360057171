"""Which passwords are refused because they would be guessed first (NIST SP 800-63B, section 3.1.1.2)."""

import unicodedata
from functools import cache
from pathlib import Path

from backend.domain import fold

SERVICE = "Reference backend"
# Letters as guessing programs, too, replace them. `1` stands for i or for l, and sometimes for itself: P@ssw0rd1.
SUBSTITUTES = [
    str.maketrans("@40$53" + more, "aaosse" + letters) for more, letters in (("", ""), ("71", "ti"), ("71", "tl"))
]
INVISIBLE = {"Cf", "Mn"}  # Unicode's categories of what leaves no mark of its own, beside white space
FILLERS = "\u115f\u1160\u2800"  # blanks that Unicode counts among letters and symbols


@cache
def common_passwords() -> frozenset[str]:
    """The shipped list, in lower case: those of zxcvbn-ts (MIT) and Django (BSD) that have 8 characters and more."""
    return frozenset((Path(__file__).parent / "common_passwords.txt").read_text(encoding="utf-8").split())


def weakness(password: str, email: str = "", name: str = "") -> str | None:
    """Why a user with this e-mail and name must not have the password, None if it will do.

    Compared without case and the compatibility forms of Unicode, with and without spaces and punctuation, as it is
    written and with letters for the digits that stand for them. Control characters count.
    """
    plain = _plain(password)
    if all(char.isspace() or unicodedata.category(char) in INVISIBLE or char in FILLERS for char in plain):
        return "must not be blank"
    written = {plain, *(plain.translate(table) for table in SUBSTITUTES)}
    spellings = written | {_bare(text) for text in written} - {""}
    if spellings & common_passwords():
        return "is on the list of common passwords"
    if _bare(SERVICE) in spellings:
        return "must not be the name of this service"
    if spellings & {_bare(email), _bare(email.partition("@")[0])}:
        return "must not be the e-mail address or its first part"
    if spellings & {_plain(name), _bare(name)}:
        return "must not be the name"
    return None


def _plain(text: str) -> str:
    return fold(unicodedata.normalize("NFKC", text))


def _bare(text: str) -> str:
    return "".join(char for char in _plain(text) if char.isalnum() or unicodedata.category(char) == "Cc")
