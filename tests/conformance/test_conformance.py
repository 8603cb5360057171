"""The conformance checks hold for this service, and find each fault of a faulty server, in its section alone."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import ROOT, development_server, run
from tests.conformance.__main__ import SECTIONS
from tests.conformance.checks import Result, results
from tests.conformance.client import PASSWORD, Client
from tests.conformance.faulty_server import FAULTS, Fault, FaultyServer, Reply, Request, Send, logout_does_nothing
from tests.conformance.report import section_text

ADMIN = "root@example.com"
ORIGIN = "https://app.example"
SETTINGS = {"RATE_LIMIT_DEFAULT": "3000/60", "RATE_LIMIT_AUTH": "150/3600", "CORS_ORIGINS": ORIGIN,
            "LOG_LEVEL": "ERROR", "REFRESH_GRACE_SECONDS": "300", "BUSY_TIMEOUT_SECONDS": "30"}  # fmt: skip

SENTENCE = "Logout takes effect on the very next request, although access tokens are JWTs: 401 `revoked`."
ROUNDS = 6
ROUNDS_OF = dict(zip(SECTIONS, combinations(range(ROUNDS), ROUNDS // 2), strict=False))  # section → where it is faulty


@contextlib.contextmanager
def serving(database: Path, **settings: str) -> Iterator[str]:
    """The URL of a development server with an admin."""
    done = run(database, "create-admin", ADMIN, ADMIN_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    with development_server(database, **SETTINGS | settings) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def behind_a_proxy(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that believes a proxy on this machine, so that each faulty server is a client with its own limits."""
    database = Path(shutil.copy(migrated, tmp_path_factory.mktemp("conformance") / "app.db"))
    with serving(database, TRUSTED_PROXIES="127.0.0.0/8") as url:
        yield url


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the checks and nothing else of this project."""
    shutil.copytree(ROOT / "tests/conformance", tmp_path / "alone/tests/conformance")
    return tmp_path / "alone"


def conformance(
    folder: Path, *arguments: str, password: str = PASSWORD, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """The command, without this environment's packages."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "tests.conformance", *arguments], cwd=folder,
        env={"ADMIN_PASSWORD": password, "PYTHONUTF8": "1"} | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def faulty_server(url: str, faults: Sequence[Fault], number: int) -> Iterator[str]:
    """The URL of a server with these faults in front of the one at `url`, for which it is client number `number`."""
    with FaultyServer(url, faults, address=f"198.51.100.{number}") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def broken_in(url: str, sections: Sequence[str]) -> dict[str, list[str]]:
    """What is broken at this server, by section."""
    api, found = Client(url, ORIGIN), dict[str, list[str]]()
    api.log_in_admin(ADMIN, PASSWORD)
    for section in sections:
        if broken := [str(result) for result in results(api, section) if result.verdict == "broken"]:
            found[section] = broken
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_by_its_section(behind_a_proxy, fault):
    section = FAULTS[fault]
    with faulty_server(behind_a_proxy, [fault], [*FAULTS].index(fault)) as url:
        assert [*broken_in(url, [section])] == [section]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_fault_makes_no_other_section_fail(behind_a_proxy, number):
    """In each round the faults of half of the sections are there, and exactly these sections fail.

    Each section is faulty in another half of the rounds. So of two sections, each is faulty in a round in which the
    other is not: no fault of the one goes unseen that would make the other fail.
    """
    faulty = [section for section, rounds in ROUNDS_OF.items() if number in rounds]
    faults = [fault for fault, section in FAULTS.items() if section in faulty]
    with faulty_server(behind_a_proxy, faults, 100 + number) as url:
        found = broken_in(url, SECTIONS)
    assert [*found] == faulty, found


def test_the_development_server_keeps_every_promise(database_path, alone):
    with serving(database_path) as url:
        done = conformance(alone, url, "--admin", ADMIN, "--origin", ORIGIN, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["broken"], done.stderr) == (0, 0, ""), done.stdout
    skipped = [check["what"] for check in report["checks"] if check["verdict"] == "skipped"]
    assert skipped == ["this server has no /metrics"]
    assert [*dict.fromkeys(check["section"] for check in report["checks"])] == [*SECTIONS]
    assert report["holds"] > 280


def test_a_broken_promise_is_shown_with_what_was_expected_and_what_came(behind_a_proxy, alone):
    with faulty_server(behind_a_proxy, [logout_does_nothing], 200) as url:
        done = conformance(alone, url, "--section", "sessions")
    assert (done.returncode, done.stderr) == (1, "")
    shown = done.stdout.partition("✗ logout ends the login at once\n")[2].splitlines()
    assert shown[0].split(maxsplit=1) == ["promise", SENTENCE]
    assert [line.split(maxsplit=2)[:2] for line in shown[2:4]] == [["expected", "401"], ["came", "200"]]
    assert "Score: 8 of 10 promises hold (80 %), 0 not checked." in done.stdout
    assert "\x1b" not in done.stdout


def test_an_answer_that_is_no_json_is_shown(behind_a_proxy, alone):
    def a_page_of_html(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
        return (
            Reply(500, {"content-type": "text/html"}, b"<h1>Oh no</h1>")
            if "/nothing" in request.path
            else send(request)
        )

    with faulty_server(behind_a_proxy, [a_page_of_html], 203) as url:
        done = conformance(alone, url, "--section", "conventions")
    assert done.returncode == 1
    assert "no JSON: 500 <h1>Oh no</h1>" in done.stdout


def test_colours_are_for_terminals():
    results = [Result("orders", "an order", "Promise.", "broken", "POST /orders", "201", "500")]
    assert "\x1b[31m  ✗ an order\x1b[0m" in section_text(results, colour=True)
    assert "\x1b" not in section_text(results, colour=False)


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [("7", 7), ("0", 1), ("-1", 1), ("Wed, 21 Oct 2026 07:28:00 GMT", 1), ("999999999", 120), ("9" * 40, 1)],
)
def test_a_limit_is_waited_for(behind_a_proxy, retry_after, pause):
    """The request is sent again after Retry-After, or after a second if that is no sensible number of seconds."""

    def twice_too_many(request: Request, send: Send, memory: dict[str, Any]) -> Reply:
        memory[len(memory)] = True
        return Reply(429, {"retry-after": retry_after}, b"") if len(memory) <= 2 else send(request)

    waits: list[float] = []
    with faulty_server(behind_a_proxy, [twice_too_many], 201) as url:
        assert Client(url, wait=waits.append).get("//healthz").status == 200
    assert waits == [pause, pause]


def test_a_limit_that_never_lets_a_request_pass_ends_the_waiting(behind_a_proxy):
    waits: list[float] = []
    with faulty_server(behind_a_proxy, [lambda request, send, memory: Reply(429, {}, b"")], 204) as url:
        assert Client(url, wait=waits.append).get("//healthz").status == 429
    assert waits == [1] * 60


def test_no_step_of_a_check_is_an_assertion_that_python_may_drop(behind_a_proxy, alone):
    with faulty_server(behind_a_proxy, [], 205) as url:
        done = conformance(alone, url, "--admin", ADMIN, "--section", "accounts", PYTHONOPTIMIZE="1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize(("arguments", "line"), [
    (["nowhere"], "error: argument URL: 'nowhere' is no URL such as "),
    (["http://127.0.0.1:0"], "error: argument URL: 'http://127.0.0.1:0' is no URL such as "),
    (["http://127.0.0.1:http"], "error: argument URL: 'http://127.0.0.1:http' is no URL such as "),
    (["http://127.0.0.1:{free}"], "http://127.0.0.1:{free} cannot be reached: "),
    (["http://.example"], "http://.example cannot be reached: "),
    (["{url}/ä"], "{url}/ä cannot be reached: "),
    (["{url}", "--admin", "nobody@example.com"], "nobody@example.com cannot log in: "),
    (["{url}", "--section", "coffee"], "error: argument --section: invalid choice: 'coffee'"),
])  # fmt: skip
def test_what_cannot_be_checked_is_one_line_and_status_2(behind_a_proxy, alone, arguments, line):
    with socket.socket() as without_listener, faulty_server(behind_a_proxy, [], 202) as url:
        without_listener.bind(("127.0.0.1", 0))  # no other program can take the port
        free = without_listener.getsockname()[1]
        done = conformance(alone, *(each.format(free=free, url=url) for each in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    *usage, last = done.stderr.splitlines()
    assert line.format(free=free, url=url) in last
    assert len(usage) == ("error: " in last)


def test_without_a_terminal_a_missing_password_is_one_line(behind_a_proxy, alone):
    done = conformance(alone, behind_a_proxy, "--admin", ADMIN, password="")
    assert (done.returncode, done.stderr) == (2, "set ADMIN_PASSWORD to the admin's password\n")
