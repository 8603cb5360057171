"""The constraints of one field, each as a check and as JSON Schema.

A dataclass in `routes/` says `amount: Annotated[int, Integer(1, MAX_AMOUNT)]`; `schemas.py` reads it. A rule's `check`
returns the value to use, or adds an error under `path` to `wrong` and returns None. Rules are immutable. `title` names
a rule's schema in `/openapi.json`, so that it is there once; `example` is the value with which `/docs` fills a form.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from backend.domain import MAX_AMOUNT
from backend.infrastructure.ids import is_id

FieldErrors = dict[str, str]  # path of a field → its error
Schema = dict[str, Any]


class Rule(Protocol):
    def check(self, value: object, path: str, wrong: FieldErrors) -> Any: ...
    def schema(self) -> Schema: ...


# Character classes, in the syntax that Python and ECMA-262 share, without their brackets.
BIDIRECTIONAL = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's Bidi_Control: they reorder text on screen
CONTROLS = rf"\u0000-\u001f\u007f-\u009f{BIDIRECTIONAL}"
SPACES = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # WHITE without its control characters
CONTROL = re.compile(f"[{CONTROLS}]")
# Excluded: white space, Unicode's Default_Ignorable_Code_Point, the blanks of Braille and music, and characters that
# only arrange others (annotation marks, the object placeholder, hieroglyph joiners, the Khitan filler).
VISIBLE = re.compile(
    rf"[^{SPACES}\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U00013430-\U0001343f\U00016fe4\U0001bca0-\U0001bca3\U0001d159"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
WHITE = (  # trimmed from both ends; str.strip() without it would also trim the separators U+001C to U+001F and U+0085
    " \t\n\v\f\r\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
    "\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
# NFC makes at most four characters into one, so a text with more is too long without normalising it. That takes seconds
# for 64 KiB of combining marks, because they are sorted by insertion, and no other thread runs meanwhile.
COMPOSED = 4
DIGITS = re.compile(r"[0-9]{1,19}")
# The WHATWG's pattern for <input type=email>, with at least two labels in the domain and no encoded word (RFC 2047):
# mail software may decode one into another address.
EMAIL = re.compile(
    r"(?!.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)


@dataclass(frozen=True)
class Text:
    """A string of `low` to `high` characters after NFC normalisation.

    Unless `verbatim`, it is trimmed and must be free of control characters; with `low` > 0 it must have a visible one.
    """

    low: int
    high: int
    verbatim: bool = False
    title: str = ""
    example: str = ""

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if not isinstance(value, str):
            wrong[path] = "must be a string"
            return None
        text = value if self.verbatim else value.strip(WHITE)
        if len(text) <= COMPOSED * self.high and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if not self.low <= len(text) <= self.high:
            wrong[path] = f"must have {self.low} to {self.high} characters"
        elif "\0" in text or (not self.verbatim and CONTROL.search(text)):
            wrong[path] = "must not contain control characters"
        elif self.low and not self.verbatim and not VISIBLE.search(text):
            wrong[path] = "must contain a visible character"
        else:
            return text
        return None

    def schema(self) -> Schema:
        """The length of a trimmed text is in its pattern: `maxLength` would count the white space around it."""
        named = _named(self.title, self.example)
        if self.verbatim:
            pattern = "^[^\\u0000]*$"
            return {**named, "type": "string", "minLength": self.low, "maxLength": self.high, "pattern": pattern}
        edge, inner = f"[^{CONTROLS}{SPACES}]", f"[^{CONTROLS}]"
        kept = f"{edge}(?:{inner}{{0,{self.high - 2}}}{edge})?" + ("" if self.low else "|")
        pattern = rf"^[\t-\r{SPACES}]*(?:{kept})[\t-\r{SPACES}]*$"
        visible = ", at least one of them visible" if self.low else ""
        description = f"{self.low} to {self.high} characters after trimming{visible}."
        return {**named, "type": "string", "description": description, "pattern": pattern}


@dataclass(frozen=True)
class Token:
    """A string of 1 to `high` characters that this service has made. It is not normalised: one spelling is valid."""

    high: int
    example: str = ""

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if not isinstance(value, str):
            wrong[path] = "must be a string"
        elif not 1 <= len(value) <= self.high:
            wrong[path] = f"must have 1 to {self.high} characters"
        elif "\0" in value:
            wrong[path] = "must not contain control characters"
        else:
            return value
        return None

    def schema(self) -> Schema:
        return Text(1, self.high, verbatim=True, example=self.example).schema()


@dataclass(frozen=True)
class Email:
    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        text = Text(1, 254).check(value, path, wrong)
        if text is not None and (not EMAIL.fullmatch(text) or text.index("@") > 64):
            wrong[path] = "must be an e-mail address"
        return text

    def schema(self) -> Schema:
        return {
            **_named("EmailAddress", "grey@example.com"),
            "type": "string",
            "description": "Without an encoded word (`=?`, RFC 2047).",
            "format": "email",
            "maxLength": 254,
            "pattern": f"^{EMAIL.pattern}$",
        }


@dataclass(frozen=True)
class Integer:
    low: int
    high: int

    def check(self, value: object, path: str, wrong: FieldErrors) -> int | None:
        if type(value) is not int:  # isinstance() would accept a bool
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
    """One of several strings. `meaning` describes a list too long for an error."""

    of: Collection[str]
    meaning: str = ""
    title: str = ""
    example: str = ""

    def check(self, value: object, path: str, wrong: FieldErrors) -> str | None:
        if isinstance(value, str) and (text := value.strip(WHITE)) in self.of:
            return text
        wrong[path] = f"must be {self.meaning or 'one of ' + ', '.join(self.of)}"
        return None

    def schema(self) -> Schema:
        return {**_named(self.title, self.example), "type": "string", "enum": sorted(self.of)}


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
    """`low` to `high` values of one rule, all different; objects are compared by their field `unique`."""

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
            key = entry.get(self.unique) if isinstance(entry, dict) else entry
            if isinstance(key, str):
                if key.strip(WHITE) in seen:
                    wrong.setdefault(f"{path}[{n}]{self.unique and '.'}{self.unique}", "must be unique")
                seen.add(key.strip(WHITE))

    def schema(self) -> Schema:
        unique = {} if self.unique else {"uniqueItems": True}
        return {"type": "array", "items": self.rule.schema(), "minItems": self.low, "maxItems": self.high, **unique}


def _named(title: str, example: str) -> Schema:
    return {**({"title": title} if title else {}), **({"examples": [example]} if example else {})}


# Field types that several schemas share.
EmailAddress = Annotated[str, Email()]
Name = Annotated[str, Text(1, 100, title="Name", example="Earl Grey")]
Money = Annotated[int, Integer(1, MAX_AMOUNT)]
Reference = Annotated[str, Id()]
Secret = Annotated[str, Token(4096, example="the token")]
