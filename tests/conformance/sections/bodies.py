"""Bodies: strict JSON, its content type and its size."""

from tests.conformance.checks import Broken, check, check_each, expect_data, expect_error, expect_header, expect_wrong
from tests.conformance.client import UNKNOWN_ID, Client

VALID = b'{"currency": "EUR"}'  # for POST /accounts
MALFORMED = {
    "empty": b"",
    "cut short": b'{"currency": "EUR"',
    "text after it": b'{"currency": "EUR"} x',
    "two values": b'{"currency": "EUR"}{}',
    "single quotes": b"{'currency': 'EUR'}",
    "a comma too many": b'{"currency": "EUR",}',
    "a comment": b'{"currency": "EUR"} // euro',
    "two equal keys": b'{"currency": "USD", "currency": "EUR"}',
    "NaN": b'{"currency": "EUR", "x": NaN}',
    "Infinity": b'{"currency": "EUR", "x": -Infinity}',
    "a number that overflows": b'{"currency": "EUR", "x": 1e999}',
    "an integer beyond 64 bits": b'{"currency": "EUR", "x": 18446744073709551616}',
    "a lone surrogate": b'{"currency": "EUR", "x": "\\ud800"}',
    "a surrogate in UTF-8": b'{"currency": "EUR", "x": "\xed\xa0\x80"}',
    "not UTF-8": b'{"currency": "EUR", "x": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + VALID,
    "UTF-16": VALID.decode().encode("utf-16"),
    "a control character in a string": b'{"currency": "EUR\n"}',
    "a leading zero": b'{"currency": "EUR", "x": 01}',
    "33 levels": b'{"currency": "EUR", "x": ' + b"[" * 32 + b"]" * 32 + b"}",
    "a thousand levels": b"[" * 1000 + b"]" * 1000,
}
NO_INTEGERS = {"true": b"true", "1.0": b"1.0", "a string": b'"1"', "an exponent": b"1E2", "null": b"null",
               "zero": b"0", "negative": b"-5", "too much": b"1000000000001", "an array": b"[1]"}  # fmt: skip
JSON = "application/json"
NO_JSON = {"text": "text/plain", "a form": "application/x-www-form-urlencoded", "no type": "",
           "another charset": f"{JSON}; charset=latin-1"}  # fmt: skip
TOO_LARGE = 64 * 1024 + 1


@check_each(MALFORMED)
def malformed_json(api: Client, body: bytes) -> None:
    """A body that is empty, not UTF-8, not JSON, has duplicate keys, NaN, Infinity, a number that overflows, an
    integer beyond 64 bits, a lone surrogate or nesting over 32 levels is 400 `MALFORMED_JSON`."""
    expect_error(api.post("/accounts", api.ada, body=body), 400, "MALFORMED_JSON")


@check
def thirty_two_levels_are_read(api: Client) -> None:
    """Nesting of 32 levels is JSON: the body is read, and its unknown field refused."""
    body = b'{"currency": "EUR", "x": ' + b"[" * 31 + b"]" * 31 + b"}"
    expect_wrong(api.post("/accounts", api.ada, body=body), "x")


@check_each({"an array": b"[]", "a string": b'"EUR"', "a number": b"1", "null": b"null", "true": b"true"})
def json_that_is_no_object(api: Client, body: bytes) -> None:
    """A body that is JSON but not an object is 422."""
    expect_error(api.post("/accounts", api.ada, body=body), 422, "VALIDATION_ERROR")


@check_each(NO_INTEGERS)
def an_amount(api: Client, amount: bytes) -> None:
    """Money is an integer from 1 to 10¹²: `true`, `1.0`, `"1"` and `1E2` are not integers."""
    from_, to = UNKNOWN_ID, UNKNOWN_ID.replace("8000", "8001")
    body = b'{"fromAccountId": "%b", "toAccountId": "%b", "amount": %b}' % (from_.encode(), to.encode(), amount)
    expect_wrong(api.post("/transfers", api.ada, body=body), "amount")


@check_each(NO_JSON)
def another_content_type(api: Client, kind: str) -> None:
    """A body of another type than `application/json` in UTF-8 is 415 with `Accept: application/json`."""
    answer = api.post("/accounts", api.ada, body=VALID, headers={"Content-Type": kind})
    expect_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    expect_header(answer, "Accept", JSON)


@check_each({"UTF-8": f"{JSON}; charset=UTF-8", "quoted": f'{JSON};charset="utf-8"', "capitals": "Application/JSON"})
def utf_8_may_be_named(api: Client, kind: str) -> None:
    """`charset=utf-8` may be named, and letter case has no meaning."""
    expect_data(api.post("/accounts", api.ada, body=VALID, headers={"Content-Type": kind}), 201)


@check
def an_encoded_body_is_415(api: Client) -> None:
    """A body with `Content-Encoding` is 415."""
    answer = api.post("/accounts", api.ada, body=VALID, headers={"Content-Encoding": "gzip"})
    expect_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@check
def sixty_four_kib_are_read(api: Client) -> None:
    """A body of 64 KiB is read."""
    expect_data(api.post("/accounts", api.ada, body=VALID.ljust(TOO_LARGE - 1)), 201)


@check
def more_is_413(api: Client) -> None:
    """A body over 64 KiB is 413."""
    try:
        answer = api.post("/accounts", api.ada, body=VALID.ljust(TOO_LARGE))
    except ConnectionError as lost:
        raise Broken("POST /accounts with 65,537 bytes", "413 PAYLOAD_TOO_LARGE", repr(lost)) from None
    expect_error(answer, 413, "PAYLOAD_TOO_LARGE")


@check
def chunks_are_411(api: Client) -> None:
    """`Transfer-Encoding`, whatever it says, is 411."""
    answer = api.post("/accounts", api.ada, headers={"Transfer-Encoding": "chunked", "Content-Type": JSON})
    expect_error(answer, 411, "LENGTH_REQUIRED")


@check
def an_unknown_field_is_422(api: Client) -> None:
    """Unknown request fields are refused."""
    expect_wrong(api.post("/accounts", api.ada, {"currency": "EUR", "balance": 5}), "balance")
