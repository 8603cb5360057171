"""The vocabulary of fields: what one value may be, as a check and as JSON Schema, from one source.

A dataclass in `routes/` says `amount: Annotated[int, Integer(1, MAX_AMOUNT)]`; `schemas.py` reads it. A rule's `check`
returns the value to use, or notes in `wrong` what is wrong at `path` and returns None. Rules are immutable.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from backend.domain import MAX_AMOUNT
from backend.infrastructure.ids import is_id

FieldErrors = dict[str, str]  # path → what is wrong there
Schema = dict[str, Any]


class Rule(Protocol):
    def check(self, value: object, path: str, wrong: FieldErrors) -> Any: ...
    def schema(self) -> Schema: ...


# Classes of characters, as Python and ECMA-262 both write them within brackets.
BIDIRECTIONAL = (
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's Bidi_Control: they make text read as another
)
CONTROLS = rf"\u0000-\u001f\u007f-\u009f{BIDIRECTIONAL}"
SPACES = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # what WHITE has, but controls
CONTROL = re.compile(f"[{CONTROLS}]")
# Neither white space, nor Unicode's Default_Ignorable_Code_Point, nor the blanks of Braille and music, nor what only
# arranges others: marks of annotations, the place of an object, joiners of hieroglyphs, the filler of Khitan.
VISIBLE = re.compile(
    rf"[^{SPACES}\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
WHITE = (  # what is trimmed off; str.strip() would take other control characters for white space, too
    " \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
DIGITS = re.compile(r"[0-9]{1,19}")
# The WHATWG's pattern for <input type=email> with at least two labels in the domain; and no encoded word (RFC 2047),
# which mail software may decode into another address.
EMAIL = re.compile(
    r"(?!.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)


@dataclass(frozen=True)
class Text:
    """A string of `low` to `high` characters once it is NFC.

    Unless it is `verbatim`, it is trimmed, free of controls and, where it may not be empty, visible.
    """

    low: int
    high: int
    verbatim: bool = False

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if not isinstance(value, str):
            wrong[path] = "must be a string"
            return None
        text = value if value.isascii() else unicodedata.normalize("NFC", value)
        text = text if self.verbatim else text.strip(WHITE)
        if not self.low <= len(text) <= self.high:
            wrong[path] = f"must have {self.low} to {self.high} characters"
        elif "\0" in text or (not self.verbatim and CONTROL.search(text)):
            wrong[path] = "must not contain control characters"
        elif self.low and not self.verbatim and not VISIBLE.search(text):
            wrong[path] = "must have a visible character"
        else:
            return text
        return None

    def schema(self) -> Schema:
        """A trimmed text's length stands in its pattern: `maxLength` would count the white space around it, too."""
        if self.verbatim:
            return {"type": "string", "minLength": self.low, "maxLength": self.high, "pattern": "^[^\\u0000]*$"}
        edge, inner = f"[^{CONTROLS}{SPACES}]", f"[^{CONTROLS}]"
        kept = f"{edge}(?:{inner}{{0,{self.high - 2}}}{edge})?" + ("" if self.low else "|")
        pattern = rf"^[\t-\r{SPACES}]*(?:{kept})[\t-\r{SPACES}]*$"
        said = f"{self.low} to {self.high} characters once it is trimmed{', one of them visible' if self.low else ''}."
        return {"type": "string", "description": said, "pattern": pattern}


@dataclass(frozen=True)
class Email:
    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        text = Text(1, 254).check(value, path, wrong)
        if text is not None and (not EMAIL.fullmatch(text) or text.index("@") > 64):
            wrong[path] = "must be an e-mail address"
        return text

    def schema(self) -> Schema:
        said = "Without an encoded word (`=?`, RFC 2047)."
        shape = {"format": "email", "maxLength": 254, "pattern": f"^{EMAIL.pattern}$"}
        return {"type": "string", "description": said, **shape}


@dataclass(frozen=True)
class Integer:
    low: int
    high: int

    def check(self, value: object, path: str, wrong: FieldErrors) -> int | None:
        if type(value) is not int:  # a bool is an int to Python, not to a client
            wrong[path] = "must be an integer"
        elif not self.low <= value <= self.high:
            wrong[path] = f"must be from {self.low} to {self.high}"
        else:
            return value
        return None

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Boolean:
    def check(self, value: object, path: str, wrong: FieldErrors) -> bool | None:
        if isinstance(value, bool):
            return value
        wrong[path] = "must be true or false"
        return None

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice:
    """One of a few strings; `meaning` tells of a list too long to show, `title` names it in the documentation."""

    of: Collection[str]
    meaning: str = ""
    title: str = ""

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if isinstance(value, str) and (text := value.strip(WHITE)) in self.of:
            return text
        wrong[path] = f"must be {self.meaning or 'one of ' + ', '.join(self.of)}"
        return None

    def schema(self) -> Schema:
        title = {"title": self.title} if self.title else {}
        return {**title, "type": "string", "enum": sorted(self.of)}


@dataclass(frozen=True)
class Id:
    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if isinstance(value, str) and is_id(text := value.strip(WHITE)):
            return text
        wrong[path] = "must be an id: a lowercase UUID"
        return None

    def schema(self) -> Schema:
        return {"type": "string", "format": "uuid"}


@dataclass(frozen=True)
class ListOf:
    """`low` to `high` values of one rule, no two alike (objects: in their field `unique`)."""

    rule: Rule
    low: int
    high: int
    unique: str = ""

    def check(self, value: object, path: str, wrong: FieldErrors) -> tuple[Any, ...] | None:
        if not isinstance(value, list):
            wrong[path] = "must be an array"
        elif not self.low <= len(value) <= self.high:
            wrong[path] = f"must have {self.low} to {self.high} entries"
        else:
            checked = tuple(self.rule.check(entry, f"{path}[{n}]", wrong) for n, entry in enumerate(value))
            self._check_unique(value, path, wrong)
            return checked
        return None

    def _check_unique(self, entries: list[Any], path: str, wrong: FieldErrors) -> None:
        seen: set[str] = set()
        for n, entry in enumerate(entries):
            mark = entry.get(self.unique) if isinstance(entry, dict) else entry
            if isinstance(mark, str):
                if mark.strip(WHITE) in seen:
                    wrong.setdefault(f"{path}[{n}]{self.unique and '.'}{self.unique}", "must not stand here twice")
                seen.add(mark.strip(WHITE))

    def schema(self) -> Schema:
        unique = {} if self.unique else {"uniqueItems": True}
        return {"type": "array", "items": self.rule.schema(), "minItems": self.low, "maxItems": self.high, **unique}


# The contract's own kinds of value, by name.
EmailAddress = Annotated[str, Email()]
Name = Annotated[str, Text(1, 100)]
Money = Annotated[int, Integer(1, MAX_AMOUNT)]
Reference = Annotated[str, Id()]
Secret = Annotated[str, Text(1, 4096, verbatim=True)]  # a token or a password that is compared, not chosen
