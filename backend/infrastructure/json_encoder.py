"""JSON text of the domain's nouns: field names in camelCase, times as RFC 3339. Thread-safe.

The standard encoder writes plain data; for a dataclass it asks `_members` for a dict.
"""

import json
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from backend.domain import Timestamp
from backend.infrastructure.logs import iso_time


def to_json(value: object) -> str:
    """Compact JSON of a dataclass, a list of them, or plain data; any other type raises TypeError."""
    return _encoder.encode(value)


def camel_case(name: str) -> str:
    """`unit_price` becomes `unitPrice`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _members(noun: Any) -> dict[str, Any]:
    return {
        name: iso_time(getattr(noun, attribute)) if is_time else getattr(noun, attribute)
        for attribute, name, is_time in _fields_of(noun.__class__)
    }


@cache
def _fields_of(noun: type[Any]) -> list[tuple[str, str, bool]]:
    """Of each field the attribute, the JSON name, and whether it holds a Timestamp: at run time that is an int."""
    hints = get_type_hints(noun)
    return [(field.name, camel_case(field.name), hints[field.name] is Timestamp) for field in fields(noun)]


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_members, check_circular=False)
