"""Strict JSON: what two parsers could read differently is refused, with MalformedJson and no other error."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import MalformedJson
from backend.web.json_body import parse_json


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


def objects(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


MALFORMED = {
    "nothing": b"",
    "white space": b" \n\t\r ",
    "a no-break space": b"\xc2\xa0{}",
    "half an object": b'{"a": 1',
    "two values": b"{} {}",
    "a trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "a comment": b"{} // why",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": -Infinity}',
    "1e400": b'{"a": 1e400}',
    "-1e400": b'{"a": -1e400}',
    "an overflow without exponent": b'{"a": ' + b"9" * 400 + b".0}",
    "2**63": b'{"a": 9223372036854775808}',
    "-2**63 - 1": b'{"a": -9223372036854775809}',
    "5,000 digits": b'{"a": ' + b"1" * 5_000 + b"}",
    "minus 5,000 digits": b'{"a": -' + b"1" * 5_000 + b"}",
    "a leading zero": b'{"a": 01}',
    "a plus sign": b'{"a": +1}',
    "another script's digits": '{"a": ١٢}'.encode(),
    "an escaped high surrogate": rb'{"a": "\ud800"}',
    "an escaped low surrogate": rb'{"a": "\uDFFF"}',
    "surrogates the wrong way round": rb'{"a": "\udc00\ud800"}',
    "a surrogate deep inside": rb'{"a": [{"b": ["x\ud800y"]}]}',
    "a surrogate in a key": rb'{"\ud800": 1}',
    "a surrogate in a deep key": rb'[[{"a\udfff": 1}]]',
    "CESU surrogates": b'{"a": "\xed\xa0\x80\xed\xb0\x80"}',
    "an overlong encoding": b'{"a": "\xc0\xaf"}',
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16 with a mark": '{"a": 1}'.encode("utf-16"),
    "UTF-16": '{"a": 1}'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}'.encode("utf-32-be"),
    "a bare NUL": b'{"a": "\x00"}',
    "a bare line end in a string": b'{"a": "x\ny"}',
    "a NUL after the value": b"{}\x00",
    "duplicate keys": b'{"a": 1, "a": 1}',
    "duplicate keys inside": b'{"a": [{"b": {"c": 1, "d": 2, "c": 3}}]}',
    "duplicate keys, one escaped": rb'{"a": 1, "\u0061": 2}',
    "33 arrays": nested(33),
    "33 objects": objects(33),
    "33 of both": b'{"a":' + nested(32) + b"}",
    "33 after many shallow ones": b"[" + b"[]," * 40 + nested(32) + b"]",
    "10,000 arrays": nested(10_000),
    "10,000 objects": b'{"a":' * 10_000,
    "30,000 that never close": b"[" * 30_000,
}

WELL_FORMED: dict[str, tuple[bytes, Any]] = {
    "2**63 - 1": (b"[9223372036854775807]", [2**63 - 1]),
    "-2**63": (b"[-9223372036854775808]", [-(2**63)]),
    "the greatest float": (b"[1.7976931348623157e308]", [1.7976931348623157e308]),
    "an underflow": (b"[1e-400]", [0.0]),
    "a long fraction": (b"[0." + b"3" * 5_000 + b"]", [1 / 3]),
    "white space around": (b" \r\n\t{ } \n", {}),
    "a pair of surrogates": (rb'{"\ud83d\ude00": "\uD83D\uDE00"}', {"😀": "😀"}),
    "a backslash before ud800": (rb'["\\ud800"]', ["\\ud800"]),
    "an escaped NUL": (rb'["\u0000"]', ["\0"]),
    "a noncharacter": ('["\uffff"]'.encode(), ["\uffff"]),
    "a mark inside a string": ('["\ufeff"]'.encode(), ["\ufeff"]),
    "one key in two objects": (b'[{"a": 1}, {"a": {"a": 1}}]', [{"a": 1}, {"a": {"a": 1}}]),
    "keys that differ in case": (b'{"a": 1, "A": 2}', {"a": 1, "A": 2}),
    "brackets in a string": (json.dumps(["[" * 9_000 + "{" * 9_000]).encode(), ["[" * 9_000 + "{" * 9_000]),
    "brackets after an escaped quote": (json.dumps(['"' + "[" * 99, '\\"' + "{" * 99]).encode(),
                                        ['"' + "[" * 99, '\\"' + "{" * 99]),
    "brackets in a key": (json.dumps({"[{" * 99: []}).encode(), {"[{" * 99: []}),
    "many arrays side by side": (b"[" + b"[]," * 9_000 + b"[]]", [[]] * 9_001),
}  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_parsers_could_read_differently_is_malformed(data):
    with pytest.raises(MalformedJson):
        parse_json(data)


@pytest.mark.parametrize(("data", "value"), WELL_FORMED.values(), ids=WELL_FORMED)
def test_what_every_parser_reads_alike_is_read(data, value):
    assert repr(parse_json(data)) == repr(value)


@pytest.mark.parametrize(
    "data",
    [nested(32), objects(32), b'{"a":' + nested(31) + b"}", b"[" + nested(31) + b"]",
     b"[" + b",".join([nested(31), objects(31)] * 20) + b"]"],
)  # fmt: skip
def test_thirty_two_levels_are_not_too_deep(data):
    """The outermost value is level 1."""
    assert json.dumps(parse_json(data), separators=(",", ":")).encode() == data


def test_a_malformed_body_is_a_400_in_the_envelope(api):
    """Every malformed body through a whole request: one code, one message, nothing of the parser's."""
    for name, data in MALFORMED.items():
        answer = api("POST", "/auth/logout", data=data, content_type="application/json")
        assert answer.status_code == 400, name
        error = {"code": "MALFORMED_JSON", "message": "The body is not valid JSON."}
        assert answer.json["error"] == error, name


def test_a_well_formed_body_is_never_malformed(api):
    """Errors in it are errors of its fields: 422."""
    for name, (data, _) in WELL_FORMED.items():
        answer = api("POST", "/auth/logout", data=data, content_type="application/json")
        assert (answer.status_code, answer.json["error"]["code"]) == (422, "VALIDATION_ERROR"), name


@pytest.mark.parametrize("path", ["/auth/logout", "/transfers", "/auth/sessions"])
def test_a_body_shorter_than_announced_is_malformed(api, ada, path):
    """Also if the part is JSON, if the bytes are read for an idempotency key, or if the route takes no body."""
    method = "DELETE" if path == "/auth/sessions" else "POST"
    answer = api(
        method, path, ada, data=b"{}", content_type="application/json", environ_overrides={"CONTENT_LENGTH": "3"}
    )
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "MALFORMED_JSON")


def test_no_more_of_the_body_is_read_than_announced(api):
    """The bytes that follow belong to the next request."""
    sent = json.dumps({"refreshToken": "none"}).encode()
    length = {"CONTENT_LENGTH": str(len(sent))}
    answer = api(
        "POST", "/auth/logout", data=sent + b"}garbage", content_type="application/json", environ_overrides=length
    )
    assert answer.status_code == 204


def test_without_a_content_length_the_body_is_empty(api):
    answer = api("POST", "/auth/logout", content_type="application/json", environ_overrides={"CONTENT_LENGTH": ""})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "MALFORMED_JSON")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
nearly_json = st.text(st.sampled_from('[]{}",:\\ud8Dc0019.eE+-tfnrluasINy \n\x00é\ufeff'))


@given(st.binary())
def test_any_bytes_are_a_value_or_malformed(data):
    """No other exception is raised."""
    with suppress(MalformedJson):
        parse_json(data)


@given(nearly_json)
def test_what_looks_like_json_is_read_as_any_parser_would_or_is_malformed(text):
    try:
        value = parse_json(text.encode())
    except MalformedJson:
        return
    assert repr(value) == repr(json.loads(text))


@given(values, st.booleans())
def test_any_value_survives_the_way_through_json(value, ascii_only):
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert repr(parse_json(data)) == repr(value)
