"""A faulty server: it passes requests on to a good one, and breaks a promise on the way.

    python -m tests.conformance.faulty_server http://127.0.0.1:8000 logout_does_nothing

`FAULTS` has the section that finds each fault, by the fault's function. That takes the request, `send`, which asks the
good server or the next fault, and a memory of its own that lasts as long as the faulty server.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

API = "/api/v1"
SECONDS = 60


@dataclass
class Request:
    method: str
    path: str  # with the query
    headers: dict[str, str]  # names in lower case
    body: bytes
    forged_address: bool = False  # whether the client's X-Forwarded-For goes on

    @property
    def json(self) -> dict[str, Any]:
        """The body, if it is a JSON object; else {}."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def is_for(self, method: str, path: str) -> bool:
        """Whether it is for this path below the API, or for one below that if `path` ends with a slash."""
        asked, path = self.path.partition("?")[0], API + path
        return self.method == method and (asked == path or (path.endswith("/") and asked.startswith(path)))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"] if self.status >= 400 and self.body else ""


Send = Callable[[Request], Reply]
Fault = Callable[[Request, Send, dict[str, Any]], Reply]
FAULTS: dict[Fault, str] = {}  # and the section of the checks that finds each


def found_by(section: str) -> Callable[[Fault], Fault]:
    def register(fault: Fault) -> Fault:
        FAULTS[fault] = section
        return fault

    return register


def error(status: int, code: str, **details: str) -> Reply:
    """An error as the good server would send it."""
    body = {"error": {"code": code, "message": "No.", **({"details": details} if details else {})}}
    meta = {"requestId": "made-by-the-fault", "timestamp": "2026-01-01T00:00:00.000Z"}
    return Reply(status, {"content-type": "application/json"}, json.dumps(body | {"meta": meta}).encode())


@found_by("conventions")
def errors_have_no_request_id(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if reply.status >= 400:
        reply.headers.pop("x-request-id")
    return reply


@found_by("conventions")
def a_trailing_slash_is_forgiven(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    request.path = request.path.rstrip("/") or "/"
    return send(request)


@found_by("bodies")
def the_last_of_equal_keys_wins(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    if request.json:
        request.body = json.dumps(request.json).encode()
    return send(request)


@found_by("validation")
def only_the_first_wrong_field_is_named(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if reply.code == "VALIDATION_ERROR":
        body = reply.json
        body["error"]["details"] = dict([*body["error"]["details"].items()][:1])
        reply.body = json.dumps(body).encode()
    return reply


@found_by("lists")
def unknown_parameters_are_ignored(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    path, _, query = request.path.partition("?")
    known = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "colour"]
    request.path = f"{path}?{urlencode(known)}" if query else path
    return send(request)


@found_by("lists")
def a_row_is_seen_twice(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if request.method == "GET" and "cursor=" in request.path and reply.status == 200:
        body = reply.json
        reply.body = json.dumps(body | {"data": body["data"][:1] + body["data"]}).encode()
    return reply


@found_by("lists")
def the_last_page_is_followed_by_itself(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if request.method == "GET" and "cursor=" in request.path and reply.status == 200 and "link" not in reply.headers:
        reply.headers["link"] = f'<{request.path}>; rel="next"'
    return reply


@found_by("lists")
def a_cursor_is_good_for_any_filter(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    """A cursor that the good server refuses is answered with the first page."""
    reply = send(request)
    if request.method == "GET" and reply.code == "VALIDATION_ERROR" and "&cursor=" in request.path:
        request.path = request.path.partition("&cursor=")[0]
        return send(request)
    return reply


@found_by("authentication")
def signatures_are_not_checked(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    token = request.headers.get("authorization", "").rpartition(" ")[2]
    claims = token.split(".")[1] if "." in token else ""
    if claims in memory:
        request.headers["authorization"] = f"Bearer {memory[claims]}"
    reply = send(request)
    if request.is_for("POST", "/auth/login") and reply.status == 200:
        token = reply.json["data"]["accessToken"]
        memory[token.split(".")[1]] = token
    return reply


@found_by("authentication")
def a_login_tells_who_has_an_account(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply, email = send(request), str(request.json.get("email")).lower()
    if request.is_for("POST", "/users") and reply.status == 201:
        memory[email] = True
    if request.is_for("POST", "/auth/login") and reply.status == 401 and email not in memory:
        reply.body = reply.body.replace(b"The credentials are wrong.", b"There is no such user.")
    return reply


@found_by("sessions")
def logout_does_nothing(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    valid = request.is_for("POST", "/auth/logout") and isinstance(request.json.get("refreshToken"), str)
    return Reply(204, {"x-request-id": "none"}, b"") if valid else send(request)


@found_by("sessions")
def reuse_revokes_nothing(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    """A token whose successor has been used is refused here, so the good server never learns of the reuse."""
    if not request.is_for("POST", "/auth/refresh"):
        return send(request)
    token = str(request.json.get("refreshToken"))
    if memory.get(token) in memory:
        return error(401, "UNAUTHORIZED", reason="revoked")
    reply = send(request)
    if reply.status == 200:
        memory[token] = reply.json["data"]["refreshToken"]
    return reply


@found_by("passwords")
def only_72_bytes_of_a_password_count(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    body = request.json
    if len(str(body.get("password"))) > 72:
        request.body = json.dumps(body | {"password": body["password"][:72]}).encode()
    return send(request)


@found_by("users")
def if_match_is_ignored(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    if request.is_for("PATCH", "/users/"):
        request.headers.pop("if-match", None)
    return send(request)


@found_by("users")
def roles_are_dropped_without_a_word(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    if request.is_for("PATCH", "/users/me"):
        kept = {name: value for name, value in request.json.items() if name not in ("roles", "active")}
        request.body = json.dumps(kept).encode() if request.json else request.body
    return send(request)


@found_by("products")
def the_newest_product_is_cached_for_ever(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    if not (request.is_for("GET", "/products") and request.path.endswith("?limit=1")):
        return send(request)
    return memory.setdefault("newest", memory.get("newest") or send(request))


@found_by("accounts")
def a_withdrawal_is_made_twice(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    if request.is_for("POST", "/accounts/") and request.path.endswith("/withdrawals"):
        send(request)
    return send(request)


@found_by("orders")
def the_highest_total_is_ignored(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    body = request.json
    if request.is_for("POST", "/orders") and body.get("maxTotal"):
        request.body = json.dumps({name: value for name, value in body.items() if name != "maxTotal"}).encode()
    return send(request)


@found_by("idempotency")
def keys_are_ignored(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    request.headers.pop("idempotency-key", None)
    return send(request)


@found_by("idempotency")
def a_failure_is_remembered(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    key = request.headers.get("idempotency-key"), request.headers.get("authorization"), request.body
    reply = memory.get(str(key)) or send(request)
    if reply.code == "INSUFFICIENT_FUNDS":
        memory[str(key)] = reply
    return reply


@found_by("service")
def the_document_lacks_a_route(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if request.path == "/openapi.json":
        reply.body = reply.body.replace(b'"/api/v1/audit"', b'"/api/v1/log"')
    return reply


@found_by("cross_origin")
def every_origin_is_let_in(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    reply.headers["access-control-allow-origin"] = "*"
    return reply


@found_by("access")
def the_account_of_another_is_403(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    reply = send(request)
    if request.is_for("POST", "/accounts") and reply.status == 201:
        memory[reply.json["data"]["id"]] = True
    if request.is_for("GET", "/accounts/") and reply.status == 404 and request.path.split("/")[4] in memory:
        return error(403, "FORBIDDEN")
    return reply


@found_by("limits")
def the_address_is_what_the_client_says(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
    request.forged_address = True
    return send(request)


class FaultyServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1. `address` is the client's, as told to a good server that trusts this one as its proxy."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, url: str, faults: Iterable[Fault], address: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.good, self.address = urlsplit(url), address
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answer: Send = self._ask
        for fault in faults:
            self.answer = partial(fault, send=self.answer, memory={})

    def _ask(self, request: Request) -> Reply:
        connection = HTTPConnection(self.good.hostname or "", self.good.port, timeout=SECONDS)
        headers = request.headers
        if not (request.forged_address and "x-forwarded-for" in headers):
            headers = headers | {"x-forwarded-for": self.address}
        try:
            connection.request(request.method, request.path, request.body or None, headers)
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, headers, answer.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def handle_any(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.pop("content-length", 0)))
        request = Request(self.command, self.requestline.split()[1], headers, body)
        self._write(self.server.answer(request))

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_OPTIONS = handle_any

    def _write(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        if self.command != "HEAD" and reply.status not in (204, 304):
            reply.headers["content-length"] = str(len(reply.body))
        for name, value in (reply.headers | {"connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


def main() -> None:
    named = {fault.__name__: fault for fault in FAULTS}
    parser = argparse.ArgumentParser("python -m tests.conformance.faulty_server", usage="%(prog)s URL FAULT")
    parser.add_argument("url", metavar="URL", help="the good server")
    parser.add_argument("fault", metavar="FAULT", choices=named, help=", ".join(named))
    arguments = parser.parse_args()
    with FaultyServer(arguments.url, [named[arguments.fault]]) as server:
        print(f"{arguments.fault} on {server.url}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
