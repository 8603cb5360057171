"""JSON text of the domain's nouns: field names in camelCase, times as RFC 3339. Thread-safe.

The standard encoder writes plain data; for a dataclass it asks `_members` for a dict. Production keeps the texts of
cached objects (production/kept_json.py).
"""

import json
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from backend.domain import Timestamp
from backend.infrastructure.timestamps import iso_time


def to_json(value: object) -> str:
    """Compact JSON of a dataclass, a list of them, or plain data; any other type raises TypeError."""
    return _encoder.encode(value)


def camel_case(name: str) -> str:
    """`unit_price` becomes `unitPrice`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _members(noun: Any) -> dict[str, Any]:
    names, times = _fields_of(noun.__class__)
    members = {name: getattr(noun, attribute) for attribute, name in names}
    for name in times:
        members[name] = iso_time(members[name])
    return members


@cache
def _fields_of(noun: type[Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """Its attributes with their JSON names, and which of these are times: at run time a Timestamp is an int."""
    hints = get_type_hints(noun)
    names = [(field.name, camel_case(field.name)) for field in fields(noun)]
    return names, [name for attribute, name in names if hints[attribute] is Timestamp]


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_members, check_circular=False)
