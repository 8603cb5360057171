"""The audit of dependencies, by the real pip-audit against a package index of our own behind a proxy."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ADVISORY = {"id": "PYSEC-2026-1", "fixed_in": ["99.1"], "summary": "", "details": "", "aliases": [], "withdrawn": None}
Advisories = Callable[[str], "list[Mapping[str, Any]] | None"]  # of a package; None if the index does not know it


@contextlib.contextmanager
def index(tls: ssl.SSLContext, advisories_of: Advisories) -> Iterator[str]:
    """The URL of a proxy behind which `advisories_of` answers for the JSON API of pypi.org."""

    class Index(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            advisories = advisories_of(self.path.split("/")[2])
            body = json.dumps({"vulnerabilities": advisories}).encode()
            self.send_response(404 if advisories is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Proxy(Index):
        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            with tls.wrap_socket(self.connection, server_side=True) as stream:
                Index(stream, self.client_address, self.server)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def audit(tmp_path: Path, certificate_of: Any) -> Callable[[Advisories], "subprocess.CompletedProcess[str]"]:
    def run(advisories_of: Advisories) -> "subprocess.CompletedProcess[str]":
        with index(certificate_of("DNS:pypi.org"), advisories_of) as proxy:
            return audit_by(proxy, tmp_path, REQUESTS_CA_BUNDLE=os.environ["SSL_CERT_FILE"])

    return run


def audit_by(proxy: str, cache: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"https_proxy": proxy, "no_proxy": "", "PIP_CACHE_DIR": str(cache)} | settings
    command = [sys.executable, "-m", "backend.operations.package_audit"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_known_vulnerability_is_named_with_the_version_that_fixes_it(audit):
    done = audit(lambda package: [ADVISORY] if package == "werkzeug" else [])
    assert done.returncode == 1
    assert done.stdout.startswith("werkzeug ")
    assert done.stdout.endswith(": PYSEC-2026-1, fixed in 99.1\n")
    assert len(done.stdout.splitlines()) == 1


def test_without_one_the_number_of_packages_is_told(audit):
    asked: list[str] = []
    done = audit(lambda package: asked.append(package) or [])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{len(asked)} packages without a known vulnerability\n"
    assert {"werkzeug", "pyjwt", "bcrypt", "gunicorn"} <= set(asked)


def test_an_index_without_advisories_is_no_audit(audit):
    """As many mirrors are."""
    done = audit(lambda package: None if package in ("bcrypt", "pyjwt") else [])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "not audited: the index has no advisories for 2 packages, such as bcrypt, pyjwt\n"


def test_without_a_network_it_says_so_in_one_line(tmp_path):
    done = audit_by("http://127.0.0.1:1", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("not audited: ")
    assert "proxy" in done.stderr
    assert len(done.stderr.splitlines()) == 1
