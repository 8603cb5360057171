"""Strict JSON: RFC 8259 and I-JSON (RFC 7493) together. Text that two parsers could read differently is refused.

Refused with MalformedJson: anything but UTF-8, a byte-order mark, duplicate keys, NaN and Infinity, numbers that
overflow to infinity, integers beyond 64 bits, lone surrogates, nesting over 32 levels.
"""

import json
import math
import re
from typing import Any, NoReturn

from backend.errors import MalformedJson

MAX_DEPTH = 32
# The closing quote is optional, so that every match succeeds at once. A required one fails at the end of a text with an
# open string and is tried again from each quote: a minute for 64 KiB. A text with an open string is no JSON either way.
STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def parse_json(data: bytes) -> Any:
    """The parsed value. Raises MalformedJson and no other error."""
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = _decoder.decode(text)
        if "\\u" in text:  # UTF-8 holds no lone surrogate; an escape can make one
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError):  # UnicodeError and JSONDecodeError are ValueErrors
        raise MalformedJson from None


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # the outermost value is level 1
        return
    depth = 0
    for mark in STRING.sub("", text):
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError("too deep")
        elif mark in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("beyond 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("overflow")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
