"""No body of 64 KiB takes more than a second of CPU: no other thread of the worker runs while it is parsed."""

import json
import time

import pytest

from backend.errors import MalformedJson
from backend.web.json_body import parse_json

MAX_BODY = 64 * 1024
SECONDS = 1  # of CPU time; each body takes a hundredth of it, quadratic work would take over 30

DEEP = b"[" * 33  # enough brackets that they are counted, for which strings are removed
MALFORMED = {
    "escaped quotes in a string without end": (DEEP + b'"', rb"\""),
    "quotes, every other one escaped": (DEEP, b'"\\'),
    "escaped line ends": (DEEP + b'"', b"\\\n"),
    "backslashes": (DEEP + b'"', b"\\"),
    "quotes": (DEEP, b'"'),
    "empty strings": (DEEP, b'"",'),
    "one string without end": (DEEP + b'"', b"x"),
    "brackets": (b"", b"["),
    "braces": (b"", b'{"":'),
    "white space": (DEEP, b" "),
    "digits": (b"[", b"1"),
    "a number without end": (b"[1", b"e1"),
    "minus signs": (b"[", b"-"),
    "the same key": (b"{", b'"a":1,'),
    "half a surrogate": (b'{"', rb"\ud800"),
}
TEXTS = {
    "white space inside": ("a" + " " * 60_000 + "a"),
    "other white space": "\u3000" * 20_000,
    "marks out of order": "a" + "\u0301\u0323" * 15_000,
    "marks in the reverse order": "a" + "\u0301" * 15_000 + "\u0323" * 15_000,
    "jamo": "\u1100\u1161\u11a8" * 7_000,
    "dots": "a." * 30_000 + "@",
    "labels": "a@" + "a-" * 30_000,
    "encoded words": "=?" * 30_000 + "@",
    "invisible ones": "\u200b" * 20_000,
}


def body(start: bytes, unit: bytes) -> bytes:
    return start + unit * ((MAX_BODY - len(start)) // len(unit))


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_json_is_refused_quickly(name):
    began = time.thread_time()
    with pytest.raises(MalformedJson):
        parse_json(body(*MALFORMED[name]))
    assert time.thread_time() - began < SECONDS


SIGN_UP = {"name": "Ada", "email": "ada@example.com", "password": "correct horse"}
BODIES = {
    "name": ("/users", SIGN_UP),
    "email": ("/users", SIGN_UP),
    "password": ("/users", SIGN_UP),
    "refreshToken": ("/auth/refresh", {}),
    "token": ("/auth/password-reset/confirm", {"newPassword": "correct horse"}),
}


@pytest.mark.parametrize("field", BODIES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_long_text_is_refused_quickly(api, name, field):
    path, fields = BODIES[field]
    sent = json.dumps(fields | {field: TEXTS[name]}, ensure_ascii=False).encode()
    assert len(sent) <= MAX_BODY
    began = time.thread_time()
    assert api.post(path, data=sent, content_type="application/json").status_code == 422
    assert time.thread_time() - began < SECONDS


@pytest.mark.parametrize(("field", "length"), [("name", 400), ("email", 1016), ("password", 1024)])
def test_a_text_that_is_just_short_enough_to_be_normalised_is_refused_quickly(api, field, length):
    """Four characters can become one, so a text of four times its bound is normalised before it is measured."""
    marks = "\u0301" * (length // 2) + "\u0323" * (length // 2)
    began = time.thread_time()
    assert api.post("/users", json=SIGN_UP | {field: marks}).status_code == 422
    assert time.thread_time() - began < SECONDS
