"""What is written where: the log has the cause of a 500 and never a secret; the client has neither."""

import json
import logging
import re
import time

import pytest

from backend.infrastructure.logs import JsonFormatter
from backend.settings import Networks
from tests.conftest import PASSWORD

FIELDS = ["time", "level", "requestId", "method", "path", "route", "status", "ms", "userId", "client", "bytes"]


class Unreadable:
    """A body that fails while it is read, with an unexpected error."""

    def read(self, size):
        raise RuntimeError("the cause: s3cret in /srv/app.db")


@pytest.fixture
def program_log(tmp_path):
    """What the program logs, as JSON lines; call it to read them."""
    path = tmp_path / "program.log"
    handler = logging.FileHandler(path, encoding="ascii")
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in path.read_text("ascii").splitlines()]
    logging.getLogger().removeHandler(handler)
    handler.close()


@pytest.fixture
def access_lines(log_file):
    """The lines of the access log; call it to read them."""
    return lambda: [json.loads(line) for line in log_file.read_text("ascii").splitlines()]


def fail(api, request_id, **rest):
    """Cause two unexpected errors."""
    headers = {"X-Request-ID": request_id}
    body = {"environ_overrides": {"wsgi.input": Unreadable(), "CONTENT_LENGTH": "2"}}
    return [
        api("POST", "/auth/logout", content_type="application/json", headers=headers, **body, **rest),
        api.get("/products", headers=headers, **rest),
    ]


@pytest.fixture
def broken(api, outsider):
    """An application whose products table has been removed."""
    with outsider.without("products"):
        yield api


def test_a_500_is_always_the_same_sentence(broken):
    """Whatever the cause, and none of it in body or headers."""
    answers = fail(broken, "one-of-two")
    assert [answer.status_code for answer in answers] == [500, 500]
    errors = [answer.json["error"] for answer in answers]
    assert errors[0] == errors[1] == {"code": "INTERNAL_ERROR", "message": "Something went wrong on our side."}
    for answer in answers:
        assert answer.json.keys() == {"error", "meta"}
        shown = f"{answer.text} {answer.headers}".lower()
        assert not any(word in shown for word in ("cause", "s3cret", "sqlite", "table", "runtimeerror", "traceback"))
        assert answer.headers["X-Request-ID"] == answer.json["meta"]["requestId"] == "one-of-two"
        assert answer.headers["Cache-Control"] == "no-store"


def test_the_cause_of_a_500_is_in_the_log_under_the_request_id(broken, program_log):
    fail(broken, "the-failed-one")
    errors = [line for line in program_log() if line["level"] == "ERROR"]
    assert [line["requestId"] for line in errors] == ["the-failed-one", "the-failed-one"]
    assert "the cause: s3cret" in errors[0]["exception"]
    assert re.search("no such table|relation .* does not exist", errors[1]["exception"])


def test_no_line_can_command_a_terminal(program_log, tmp_path):
    """Control characters beyond ASCII, too, are escaped: what is logged may quote a client."""
    logging.getLogger("elsewhere").warning("é \x1b[31m \x9b31m \u202e")
    assert [line["message"] for line in program_log()] == ["é \x1b[31m \x9b31m \u202e"]
    assert (tmp_path / "program.log").read_text("ascii").strip().isprintable()


def test_after_a_500_the_next_request_is_served(broken):
    fail(broken, "and-then")
    assert broken.post("/auth/logout", json={"refreshToken": "none"}).status_code == 204


def test_a_refusal_is_no_error_in_the_log(api, ada, program_log):
    """4xx are the client's affair."""
    for path in ("/nowhere", "/users", "/products?limit=0", "/products/x"):
        assert 400 <= api.get(path, ada).status_code < 500
    assert [line for line in program_log() if line["level"] in ("ERROR", "WARNING")] == []


def test_each_request_is_one_line_with_user_path_and_outcome(api, ada, access_lines):
    """The route is the template, so that lines can be added up; `bytes` are the body's."""
    began = time.perf_counter()
    answer = api.get(f"/users/{ada.id}", ada, address="203.0.113.9", headers={"X-Request-ID": "mine-to-find"})
    took = time.perf_counter() - began
    [line] = access_lines()
    assert list(line) == FIELDS
    assert line | {"time": "", "ms": 0} == {
        "time": "", "level": "INFO", "requestId": "mine-to-find", "method": "GET", "path": f"/api/v1/users/{ada.id}",
        "route": "/api/v1/users/{id}", "status": 200, "ms": 0, "userId": ada.id, "client": "203.0.113.9",
        "bytes": len(answer.data),
    }  # fmt: skip
    assert 0 < line["ms"] <= took * 1000


@pytest.mark.parametrize(
    ("method", "path", "rest", "expected"),
    [
        ("GET", "/nowhere", {}, (404, "/api/v1/nowhere", None)),
        ("PUT", "/users", {}, (405, "/api/v1/users", None)),
        ("GET", "/users/me", {}, (401, "/api/v1/users/me", "/api/v1/users/me")),
        ("GET", "/users/someone", {}, (401, "/api/v1/users/someone", "/api/v1/users/{id}")),
        ("GET", "/products?limit=0", {}, (422, "/api/v1/products", "/api/v1/products")),
        ("POST", "/users", {"headers": {"Transfer-Encoding": "x"}}, (411, "/api/v1/users", None)),
        ("OPTIONS", "/users", {}, (204, "/api/v1/users", None)),
        ("HEAD", "//healthz", {}, (200, "/healthz", "/healthz")),
        ("GET", "/%2e%2E/caf%C3%A9/", {}, (404, "/api/v1/%2e%2E/caf%C3%A9/", None)),
        ('BR"EW\\', "/nowhere", {}, (404, "/api/v1/nowhere", None)),
    ],
)
def test_refused_requests_have_their_line_too(api, access_lines, method, path, rest, expected):
    """And it is JSON whatever was sent."""
    headers = {"X-Request-ID": "mine-to-find", **rest.get("headers", {})}
    api(method, path, headers=headers)
    [line] = access_lines()
    assert (line["status"], line["path"], line["route"]) == expected
    assert (list(line), line["method"], line["userId"]) == (FIELDS, method, None)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/nowhere?token=hidden", "/nowhere"),
        ("/nowhere#token=hidden?x", "/nowhere"),
        ("http://ada:hidden@host:80/nowhere?token=hidden", "/nowhere"),
        ("http://ada:hidden@host", "/"),
        ("http://host?token=hidden", "/"),
        ("/http://a@b/", "/http://a@b/"),
        ("*", "*"),
        ("", "/api/v1/nowhere"),  # of a server that tells the decoded path alone
        ("/" + "x" * 8_000, "/" + "x" * 199),
        ('/"}\n{"\x00\x1b[31m\x85\xff\\', '/"}\n{"\x00\x1b[31m\x85\xff\\'),
    ],
)
def test_a_line_has_the_path_as_it_was_sent(api, access_lines, log_file, target, path):
    """Cut to 200 characters, in ASCII so that no terminal obeys it, without query, fragment and user information."""
    api.get("/nowhere", headers={"X-Request-ID": "mine-to-find"}, environ_overrides={"RAW_URI": target})
    [line] = access_lines()
    assert line["path"] == path
    assert log_file.read_text("ascii").strip().isprintable()
    assert "hidden" not in log_file.read_text()


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 1), ("INFO", 1), ("WARNING", 0), ("ERROR", 0)])
def test_lines_of_requests_are_info(api, access_lines, level, lines):
    logging.getLogger("backend.access").setLevel(level)
    api.get("/products")
    assert len(access_lines()) == lines


def test_a_line_outside_of_any_request_has_no_request_id_and_no_trace_id(broken, program_log):
    """Threads serve one request after the other: none must lend its id to what comes next."""
    log = logging.getLogger("elsewhere")
    log.warning("before")
    fail(broken, "one-of-two")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    broken.get("/nowhere", headers={"X-Request-ID": "the-next-one", "traceparent": trace})
    log.warning("after")
    lines = [line for line in program_log() if line["logger"] == "elsewhere"]
    assert [(line["message"], line["requestId"]) for line in lines] == [("before", "-"), ("after", "-")]
    assert not any("traceId" in line for line in lines)


def test_every_line_of_a_request_within_a_trace_has_the_trace_id(broken, access_lines, program_log):
    """The id comes from the header `traceparent`; a request without it has none, on the same thread too."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    broken.get("/products", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    broken.get("/products", headers={"traceparent": f"00-{trace.upper()}-00f067aa0ba902b7-01"})
    broken.get("/products")
    for lines in (access_lines(), [line for line in program_log() if line["level"] == "ERROR"]):
        assert [line.get("traceId", "none") for line in lines] == [trace, "none", "none"]


def test_a_500_has_its_line_too(broken, access_lines):
    fail(broken, "logged-as-500")
    broken.get("/nowhere", headers={"X-Request-ID": "the-next-one"})
    assert [line["status"] for line in access_lines()] == [500, 500, 404]


def test_no_log_line_holds_a_secret(make_api, clock, access_lines, program_log):
    """Neither passwords nor tokens, whole or in part, nor bodies, queries and headers; also when things go wrong."""
    api = make_api(trusted_proxies=Networks("unix"))
    ada = api.sign_up("Ada")
    headers = {
        "User-Agent": "agent-hidden",
        "Cookie": "cookie-hidden",
        "X-Forwarded-For": "forwarded-hidden",
        "If-Match": '"etag-hidden"',
    }
    pair = api.post("/auth/refresh", json={"refreshToken": ada.refresh}, headers=headers).json["data"]
    api.post("/auth/login", json={"email": ada.email, "password": "wrong-password-hidden"})
    api.post("/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": "new-password-hidden"})
    api.post("/auth/password-reset", json={"email": ada.email})
    api.post(
        "/auth/password-reset/confirm", json={"token": "reset-token-hidden", "newPassword": "newer-password-hidden"}
    )
    api.get("/products?cursor=cursor-hidden&token=query-hidden", ada, headers=headers)
    api("POST", "/users", data=b'{"name": "body-hidden"', content_type="application/json")
    api.get("/users/me", headers={"Authorization": f"Bearer {ada.access}tampered"})
    fail(api, "and-a-failure", by=ada)
    clock.advance(11)
    api.post("/auth/refresh", json={"refreshToken": ada.refresh}, headers={"X-Request-ID": "reuse-of-it"})
    tokens = [ada.access, ada.refresh, pair["accessToken"], pair["refreshToken"]]
    secrets = [PASSWORD, "hidden", ada.email, *tokens, *(token.rpartition(".")[2] for token in tokens)]
    for lines in (access_lines(), program_log()):
        logged = json.dumps(lines, ensure_ascii=False)
        assert lines
        assert [secret for secret in secrets if secret in logged] == []
