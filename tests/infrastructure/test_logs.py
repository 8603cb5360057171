"""Log lines: JSON for a collector, coloured text on a developer's terminal."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from select import PIPE_BUF

import pytest

from backend.infrastructure.logs import (
    PATH_KEPT,
    JsonFormatter,
    TerminalFormatter,
    path_of,
    request_id,
    trace_id,
    trace_id_of,
)

ROOT = Path(__file__).parents[2]
FIELDS = {
    "method": "GET", "path": "/api/v1/users/me", "route": "/api/v1/users/me", "status": 200, "ms": 1.25,
    "userId": "0199-ada", "client": "203.0.113.9", "bytes": 344,
}  # fmt: skip
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROGRAM = """
import logging
from backend.infrastructure import logs
logs.configure({level!r}, development={development})
log = logging.getLogger("elsewhere")
log.debug("a detail")
log.info("as usual")
log.warning("beware \\x1b[31m")
"""


def record(message, level=logging.INFO, error=None):
    error_info = error and (type(error), error, error.__traceback__)
    return logging.LogRecord("elsewhere", level, __file__, 1, message, (), error_info)


def request(**fields):
    """The record of a request."""
    return logging.LogRecord("backend.access", logging.INFO, __file__, 1, "", (FIELDS | fields,), None)


@pytest.fixture
def in_request():
    token = request_id.set("mine-to-find")
    yield
    request_id.reset(token)


@pytest.fixture
def in_trace():
    token = trace_id.set(TRACE)
    yield
    trace_id.reset(token)


def failure():
    try:
        raise ValueError("the cause\x1b[31m")
    except ValueError as error:
        return error


def logged(level, development=False, **environment):
    """What a program writes to standard error, which is no terminal."""
    program = PROGRAM.format(level=level, development=development)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def on_a_terminal(development, **environment):
    """What a program writes to standard error, which is a terminal."""
    ours, terminal = os.openpty()
    program = PROGRAM.format(level="INFO", development=development)
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, stderr=terminal, timeout=60, check=True)
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(ours, 10_000):
            shown += data
    except OSError:  # all has been read
        pass
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize(
    ("level", "messages"),
    [
        ("DEBUG", ["a detail", "as usual", "beware \x1b[31m"]),
        ("INFO", ["as usual", "beware \x1b[31m"]),
        ("WARNING", ["beware \x1b[31m"]),
        ("ERROR", []),
    ],
)
def test_standard_error_gets_json_lines_of_the_level_and_above(level, messages):
    lines = [json.loads(line) for line in logged(level).splitlines()]
    assert [line["message"] for line in lines] == messages
    assert all(list(line) == ["time", "level", "logger", "requestId", "message"] for line in lines)


def test_lines_are_json_where_there_is_no_terminal_or_no_developer():
    for shown in (logged("INFO", development=True), on_a_terminal(development=False)):
        assert [json.loads(line)["level"] for line in shown.splitlines()] == ["INFO", "WARNING"]


def test_a_developers_terminal_shows_readable_lines_in_colour():
    """Logged text cannot control the terminal."""
    usual, warning = on_a_terminal(development=True).splitlines()
    assert "elsewhere: as usual" in usual and "INFO" in usual
    assert "\x1b[33mWARNING\x1b[0m elsewhere: beware \\x1b[31m" in warning


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_no_color_leaves_the_colours_out(no_color, coloured):
    assert ("\x1b" in on_a_terminal(development=True, NO_COLOR=no_color)) == coloured


def test_logs_that_were_configured_before_stay_as_they_are():
    program = "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='mine: %(message)s')\n"
    program += PROGRAM.format(level="INFO", development=False)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("mine: beware \x1b[31m\n", "")


def test_a_log_that_is_closed_costs_its_lines_and_nothing_else():
    ours, theirs = os.pipe()
    os.close(ours)
    program = PROGRAM.format(level="INFO", development=False) + "print('still here')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    assert done.stdout == b"still here\n"


def test_the_line_of_a_request_is_its_fields(in_request):
    line = json.loads(JsonFormatter().format(request()))
    assert list(line) == ["time", "level", "requestId", *FIELDS]
    assert line == {"time": line["time"], "level": "INFO", "requestId": "mine-to-find", **FIELDS}


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-ff",
        f"cc-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-", f"01-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    ],
)  # fmt: skip
def test_a_trace_id_is_read_from_a_traceparent(header):
    """Of this version of the standard, and of later ones, which may add fields."""
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "", "00", TRACE, f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-1", f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01", f"00-{TRACE}-{PARENT}0-01", f"0-{TRACE}-{PARENT}-01", f"00_{TRACE}_{PARENT}_01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT.upper()}-01", f"0G-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-", f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE}-{PARENT}-01.",
        f"ff-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01.more", f"cc-{TRACE}-{PARENT}-011",
        f" 00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01", f"01-{TRACE}-{PARENT}-01-,01-{TRACE}-{PARENT}-01",
    ],
)  # fmt: skip
def test_a_traceparent_that_is_invalid_or_repeated_has_no_trace_id(header):
    """Two header lines arrive joined by a comma."""
    assert trace_id_of(header) is None


def test_within_a_trace_every_line_has_its_id_beside_that_of_the_request(in_request, in_trace):
    of_request, of_program = (json.loads(JsonFormatter().format(made)) for made in (request(), record("beware")))
    assert list(of_request) == ["time", "level", "requestId", "traceId", *FIELDS]
    assert list(of_program) == ["time", "level", "logger", "requestId", "traceId", "message"]
    assert of_request["traceId"] == of_program["traceId"] == TRACE
    for made in (request(), record("beware")):
        assert TerminalFormatter(colour=False).format(made).endswith(f" mine-to-find {TRACE}")


def test_the_line_of_a_request_is_never_parted_in_a_pipe(in_request, in_trace):
    """Whatever its path has: each character takes at most 12 bytes."""
    path = path_of("/" + "\U0001f600" * 2 * PATH_KEPT)
    assert len(JsonFormatter().format(request(path=path))) < PIPE_BUF


def test_a_time_is_utc_to_the_millisecond():
    made = record("")
    made.created = 1_700_000_000.0625
    assert json.loads(JsonFormatter().format(made))["time"] == "2023-11-14T22:13:20.062Z"


def test_a_traceback_is_a_field_in_json_and_lines_on_a_terminal(in_request):
    failed = record("unforeseen error", logging.ERROR, failure())
    line = json.loads(JsonFormatter().format(failed))
    assert (line["message"], line["requestId"]) == ("unforeseen error", "mine-to-find")
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: the cause\x1b[31m")
    first, *rest = TerminalFormatter(colour=False).format(failed).splitlines()
    assert first.endswith("ERROR elsewhere: unforeseen error mine-to-find")
    assert (rest[0], rest[-1]) == ("Traceback (most recent call last):", "ValueError: the cause\\x1b[31m")


def test_a_request_is_one_readable_line(in_request):
    """Method, path, status, time, user and request id; without a token there is no user."""
    format_line = TerminalFormatter(colour=False).format
    assert format_line(request()).endswith(" 200 GET /api/v1/users/me 1.25 ms 0199-ada mine-to-find")
    assert " anonymous " in format_line(request(userId=None))
    assert "/a\\nb\\u202ec é" in format_line(request(path="/a\nb\u202ec é"))


@pytest.mark.parametrize(("status", "code"), [(200, 32), (304, 36), (404, 33), (503, 31)])
def test_the_colour_of_a_request_is_that_of_its_status(status, code):
    """Errors stand out."""
    assert f"\x1b[{code}m{status}\x1b[0m" in TerminalFormatter(colour=True).format(request(status=status))
