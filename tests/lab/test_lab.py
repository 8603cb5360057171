"""The lab's server: which clients it serves, on which address, and what it leaves alone."""

import json
from dataclasses import replace

import pytest
from werkzeug.test import Client

from app import App, core_tools
from backend.lab.wiring import create_app
from backend.production.wiring import create_app as create_production
from tests.cli.running import run_here
from tests.conftest import PASSWORD
from tests.lab.conftest import lab_server
from tests.wirings import make_app

PATHS = ["/lab", "/lab/users", "/lab/trace?request=x", "/lab/storms", "/lab/xray.js", "/api/v1/products", "/nowhere"]
OWN = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000"}


@pytest.fixture
def lab(settings, no_wait_for_the_disk):
    app = create_app(settings)
    yield lambda path, **environ: Client(app).get(path, environ_overrides=OWN | environ)
    app.close()


@pytest.mark.parametrize(
    "changed",
    [
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": "::ffff:192.0.2.7"},
        {"REMOTE_ADDR": ""},
        {"HTTP_HOST": "rebound.example"},
        {"HTTP_HOST": "rebound.example:8000"},
        {"HTTP_HOST": "127.0.0.1.rebound.example"},
        {"HTTP_HOST": "localhost@rebound.example"},
        {"HTTP_HOST": ""},
        {"HTTP_ORIGIN": "http://rebound.example"},
        {"HTTP_ORIGIN": "http://127.0.0.1:9000"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
    ],
)
def test_other_machines_names_and_pages_are_refused_everywhere(lab, changed):
    for path in PATHS:
        answer = lab(path, **changed)
        assert answer.status_code == 403, path
        assert answer.json["error"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LocalHost:8000", "[::1]:8000"])
def test_this_machine_is_served(lab, peer, host):
    sent = {
        "REMOTE_ADDR": peer,
        "HTTP_HOST": host,
        "HTTP_ORIGIN": f"http://{host}",
        "HTTP_SEC_FETCH_SITE": "same-origin",
    }
    assert [lab(path, **sent).status_code for path in PATHS] == [200, 200, 404, 200, 200, 200, 404]


@pytest.mark.parametrize(
    "bind",
    [
        "0.0.0.0:8000",
        "[::]:8000",
        "192.0.2.7:8000",
        "localhost:8000",
        "unix:/run/x",
        "127.0.0.1:1,127.0.0.1:2",
    ],
)
def test_another_address_than_loopback_is_one_line_and_serves_nothing(tmp_path, bind):
    done = run_here(tmp_path / "app.db", "lab", BIND=bind)
    line = f"BIND was {bind!r}; for the lab it must be 127.0.0.1:PORT or [::1]:PORT\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert list(tmp_path.iterdir()) == []


def test_serve_is_the_lab_if_the_environment_asks_for_it(tmp_path):
    done = run_here(tmp_path / "app.db", "serve", LAB="1", BIND="0.0.0.0:8000")
    assert (done.returncode, "for the lab it must be" in done.stderr) == (1, True)
    done = run_here(tmp_path / "app.db", "serve", LAB="yes")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "LAB was 'yes'; it must be 1 or 0\n")


def test_the_lab_has_a_database_of_its_own(tmp_path):
    """A second start finds the users that the first one has made."""
    for _ in range(2):
        with lab_server(tmp_path):
            assert not (tmp_path / "app.db").exists() and (tmp_path / "lab" / "app.db").exists()


def test_a_user_who_was_deactivated_in_the_lab_is_left_out_and_the_lab_starts_again(settings, no_wait_for_the_disk):
    for tokens in (["Root", "Ada", "Grace"], ["Root", "Ada"]):
        app = create_app(settings)
        shown = Client(app).get("/lab/users", environ_overrides=OWN).json["data"]
        assert ([*shown["tokens"]], {"tea", "cup", "adaAccount"} - set(shown["ids"])) == (tokens, set())
        app.users.set_active("grace@example.com", False)
        app.close()


def test_a_first_start_that_was_interrupted_is_completed_by_the_next(settings, no_wait_for_the_disk):
    first = make_app(settings)
    first.users.create_admin("root@example.com", PASSWORD, "Root")
    first.close()
    app = create_app(settings)
    shown = Client(app).get("/lab/users", environ_overrides=OWN).json["data"]
    assert shown["tokens"].keys() == {"Root", "Ada", "Grace"}
    assert shown["ids"].keys() == {"tea", "cup", "adaAccount", "graceAccount"}
    app.close()


def test_neither_the_core_nor_production_has_the_lab(settings, monkeypatch):
    monkeypatch.setattr("backend.production.log_queue.configure", lambda _: None)
    for app in (App(settings, core_tools(settings)), create_production(replace(settings, rate_limit_default=None))):
        assert not [route.path for route in app.routes if route.path.startswith("/lab")]
        app.close()


def test_the_page_and_its_files_come_with_a_strict_policy_and_nothing_inline(lab):
    for path in ("/lab", "/lab/lab.js", "/lab/xray.js", "/lab/storms.js", "/lab/lab.css"):
        answer = lab(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    page = lab("/lab").text
    assert "<script>" not in page and "<style" not in page and " style=" not in page and " onclick" not in page


def test_its_document_is_whole(lab):
    """The routes of the lab are described like all others."""
    paths = lab("/openapi.json").json["paths"]
    assert {"/lab", "/lab/storms", "/api/v1/transfers"} <= set(paths)
    assert json.dumps(paths).count('"runStorm"') == 1


def test_requests_to_the_lab_itself_are_not_traced(lab):
    assert "Server-Timing" in lab("/api/v1/products").headers
    assert "Server-Timing" not in lab("/lab/storms").headers


def test_a_trace_can_be_asked_for_until_two_hundred_others_have_been_made(lab):
    first = lab("/healthz").headers["X-Request-ID"]
    assert lab(f"/lab/trace?request={first}").json["data"]["spans"][0]["name"] == "GET /healthz"
    for _ in range(200):
        lab("/healthz")
    assert lab(f"/lab/trace?request={first}").status_code == 404
