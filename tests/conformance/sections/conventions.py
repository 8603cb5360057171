"""Conventions: the envelope, request ids, paths, methods, and headers that every answer has."""

import re

from tests.conformance.checks import Broken, check, check_each, expect, expect_data, expect_error, expect_header
from tests.conformance.client import UNKNOWN_ID, Answer, Client

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def some_answers(api: Client) -> list[Answer]:
    """Answers of many kinds: 200, 201, 401, 404, 405, 422."""
    return [
        api.get("//healthz"), api.get("/users/me", api.ada), api.post("/accounts", api.ada, {"currency": "EUR"}),
        api.get("/users/me"), api.get("//nothing"), api("DELETE", "/products"), api.post("/accounts", api.ada, {}),
    ]  # fmt: skip


@check
def every_body_is_the_envelope(api: Client) -> None:
    """Every JSON body has exactly one of `data` and `error`, and `meta` with `requestId` and `timestamp`."""
    for answer in some_answers(api):
        body = answer.json
        if len({"data", "error"} & body.keys()) != 1 or body.keys() - {"data", "error", "meta"}:
            raise Broken(answer.request, "exactly one of data and error, and meta", answer)
        if not {"requestId", "timestamp"} <= body["meta"].keys() or not TIME.fullmatch(body["meta"]["timestamp"]):
            raise Broken(answer.request, "meta with requestId and timestamp (RFC 3339, UTC, milliseconds)", answer)


@check
def every_answer_has_its_request_id(api: Client) -> None:
    """Every response carries `X-Request-ID`, equal to `meta.requestId`."""
    for answer in some_answers(api):
        expect_header(answer, "X-Request-ID", answer.json["meta"]["requestId"])


@check
def no_sniffing(api: Client) -> None:
    """Every response carries `X-Content-Type-Options: nosniff`."""
    for answer in some_answers(api):
        expect_header(answer, "X-Content-Type-Options", "nosniff")


@check_each({"dots and dashes": ("a.b-c_D9", True), "too short": ("seven77", False), "blanks": ("not an id", False),
             "too long": ("x" * 65, False), "64 characters": ("y" * 64, True)})  # fmt: skip
def a_clients_request_id(api: Client, case: tuple[str, bool]) -> None:
    """A client's own `X-Request-ID` is kept if it matches `[A-Za-z0-9._-]{8,64}`, else replaced."""
    sent, kept = case
    came = api.get("//healthz", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    expect(f"{sent} is kept", kept, came == sent)


@check
def an_error_has_details_only_if_there_are_any(api: Client) -> None:
    """An error has a code and a message; `details` is left out when empty."""
    error = api.get("//nothing").json["error"]
    expect("the keys of the error", {"code", "message"}, set(error))


@check_each({"trailing": "/products/", "doubled": "//api/v1//products", "leading": "///api/v1/products",
             "capitals": "/Products", "unknown": "/nothing", "below an id": f"/products/{UNKNOWN_ID}/x"})  # fmt: skip
def paths_match_exactly(api: Client, path: str) -> None:
    """Paths match exactly: no redirect for a trailing or doubled slash, 404 instead."""
    expect_error(api.get(path), 404, "NOT_FOUND")


@check
def another_method_is_405(api: Client) -> None:
    """A method that a path does not have is 405 with `Allow`."""
    answer = api("PUT", "/products")
    expect_error(answer, 405, "METHOD_NOT_ALLOWED")
    allowed = {method.strip() for method in answer.headers.get("Allow", "").split(",")}
    expect("GET and POST are in Allow", True, {"GET", "POST"} <= allowed)


@check
def options_is_204(api: Client) -> None:
    """OPTIONS answers 204 with `Allow` and no body."""
    answer = api("OPTIONS", "/products")
    expect("status and body", (204, b""), (answer.status, answer.body))
    expect("GET is in Allow", True, "GET" in answer.headers.get("Allow", ""))


@check
def head_is_get_without_the_body(api: Client) -> None:
    """HEAD answers as its GET without the body."""
    get, head = (api(method, "/users/me", api.ada) for method in ("GET", "HEAD"))
    expect("status and body of HEAD", (get.status, b""), (head.status, head.body))
    for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control"):
        expect_header(head, name, get.headers.get(name))


@check
def json_whatever_is_accepted(api: Client) -> None:
    """Answers are JSON whatever `Accept` says."""
    for path in ("//healthz", "//nothing"):
        answer = api.get(path, headers={"Accept": "text/html"})
        expect(f"{path}: the type", "application/json", answer.headers.get_content_type())


@check
def answers_are_not_stored(api: Client) -> None:
    """Answers to authenticated requests, and errors, carry `Cache-Control: no-store`."""
    for answer in (api.get("/accounts", api.ada), api.get("/users/me", api.ada), api.get("//nothing")):
        expect_header(answer, "Cache-Control", "no-store")


@check
def what_was_made_has_a_location(api: Client) -> None:
    """A 201 carries the `Location` of what was made."""
    made = api.post("/accounts", api.ada, {"currency": "EUR"})
    path = f"/api/v1/accounts/{expect_data(made, 201)['id']}"
    if not made.headers.get("Location", "").endswith(path):
        raise Broken(f"{made.request}: Location", path, made.headers.get("Location"))


@check
def ids_and_times(api: Client) -> None:
    """Ids are lowercase UUIDv7 strings, times RFC 3339 in UTC with milliseconds and `Z`."""
    account = expect_data(api.post("/accounts", api.ada, {"currency": "EUR"}), 201)
    expect(f"{account['id']} is a UUIDv7", True, bool(UUID_7.fullmatch(account["id"])))
    expect(f"{account['createdAt']} is RFC 3339", True, bool(TIME.fullmatch(account["createdAt"])))


@check_each({"a word": "x", "a number": "1", "a quote": "%27", "capitals": UNKNOWN_ID.upper(), "absent": UNKNOWN_ID})
def an_id_that_is_none_is_404(api: Client, id_: str) -> None:
    """An id that is not a UUID, or of nothing, is 404, never a 500."""
    expect_error(api.get(f"/accounts/{id_}", api.ada), 404, "NOT_FOUND")
    expect_error(api.get(f"/products/{id_}"), 404, "NOT_FOUND")
