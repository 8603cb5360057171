"""The README's tour does what the README says, also when it is taken twice within a minute."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.production.real_service import service

ROOT = Path(__file__).parents[1]
STATUS = re.compile(r"^HTTP/1\.1 (\d+)", re.MULTILINE)


def tour(port: int) -> str:
    """The shell blocks of the tour as one script, for the server at `port`."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Five minutes with curl")[2]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL))
    assert "127.0.0.1:8000" in script
    return script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(".venv/bin/python", sys.executable)


@pytest.fixture
def run(tmp_path, database_path):
    """Runs the tour once, against a server with the usual limits; what it prints on both streams."""
    environment = {"DATABASE_URL": f"sqlite:///{database_path}", "BCRYPT_ROUNDS": "4", "JWT_SECRETS": SECRET}
    limits = {"RATE_LIMIT_DEFAULT": "300/60", "RATE_LIMIT_AUTH": "10/60"}
    with service(tmp_path / "server.log", database_path, **limits) as server:
        script = tour(server.address[1])

        def once() -> str:
            command = ["bash", "-c", script]
            done = subprocess.run(
                command, cwd=ROOT, env={"PATH": "/usr/bin:/bin"} | environment, capture_output=True, text=True,
                timeout=60, check=False,
            )  # fmt: skip
            assert done.stderr == ""
            return done.stdout

        yield once


def test_the_tour_shows_what_it_says_and_can_be_taken_again(run):
    for said in (run(), run()):
        assert STATUS.findall(said) == ["201", "201", "200", "404"]
        assert said.count("Idempotency-Replayed: true") == 1
        assert re.search(r'^Link: <[^>]+>; rel="next"', said, re.MULTILINE)
        assert '"status":"cancelled"' in said
        for field in ("sku", "name", "unitPrice", "currency", "stock", "colour"):
            assert re.search(rf'"details":{{[^}}]*"{field}":', said), field
