"""Passwords that are refused because an attacker would try them first (NIST SP 800-63B, section 3.1.1.2)."""

import unicodedata
from functools import cache
from pathlib import Path

from backend.domain import fold

SERVICE = "Reference backend"
# The substitutions that guessing programs try as well. `1` may stand for i, for l or for itself, as in P@ssw0rd1.
SUBSTITUTES = [
    str.maketrans("@40$53" + more, "aaosse" + letters) for more, letters in (("", ""), ("71", "ti"), ("71", "tl"))
]
INVISIBLE = {"Cf", "Mn"}  # the Unicode categories of characters that are invisible on their own, beside white space
FILLERS = "\u115f\u1160\u2800"  # blank characters that Unicode classes as letters and symbols


@cache
def common_passwords() -> frozenset[str]:
    """The shipped list, in lower case: the passwords of 8 and more characters in zxcvbn-ts (MIT) and Django (BSD)."""
    return frozenset((Path(__file__).parent / "common_passwords.txt").read_text(encoding="utf-8").split())


def weakness(password: str, email: str = "", name: str = "") -> str | None:
    """Why a user with this e-mail and name must not have this password; None if it is acceptable.

    The comparison ignores case and Unicode's compatibility forms. It is made with and without spaces and punctuation
    (control characters count), and with and without letters in place of the digits that stand for them.
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
