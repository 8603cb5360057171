"""The README's tour works, also twice within a minute, and its reading lists have the stated lengths."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import development_server, environment
from tests.code_lines import code_lines

ROOT = Path(__file__).parents[1]
STATUS = re.compile(r"^HTTP/1\.1 (\d+)", re.MULTILINE)


def tour(port: int) -> str:
    """The shell blocks of the tour as one script, for the server at `port`."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Five minutes with curl")[2]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL))
    assert "127.0.0.1:8000" in script
    return script.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace(".venv/bin/python", sys.executable)


def take_tour(database_path: Path, port: int, **settings: str) -> None:
    """Run the tour against the server at `port`, which has the default limits, and check what it prints."""
    environ = {"PATH": "/usr/bin:/bin"} | environment(database_path, **settings)
    command = ["bash", "-c", tour(port)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    assert STATUS.findall(done.stdout) == ["201", "201", "200", "404"]
    assert done.stdout.count("Idempotency-Replayed: true") == 1
    assert re.search(r'^Link: <[^>]+>; rel="next"', done.stdout, re.MULTILINE)
    assert '"status":"cancelled"' in done.stdout
    for field in ("sku", "name", "unitPrice", "currency", "stock", "colour"):
        assert re.search(rf'"details":{{[^}}]*"{field}":', done.stdout), field


def test_the_tour_shows_the_stated_results_and_can_be_repeated(database_path):
    with development_server(database_path) as server:
        for _ in range(2):
            take_tour(database_path, server.port)


def reading_lists():
    """The lists of "What to read": heading, lines of code as stated, the files and folders named."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## What to read\n")[2].partition("\n## ")[0]
    for part in section.split("\n### ")[1:]:
        heading, _, body = part.partition("\n")
        (stated,) = re.findall(r"\(([\d,]+) lines\)", heading)
        names = sorted(set(re.findall(r"`((?:backend/|app\.py)[\w/.]*)`", body)))
        if "backend/production/" not in names or (ROOT / "backend/production").exists():  # the core stands alone, too
            yield heading, int(stated.replace(",", "")), names


@pytest.mark.parametrize(("heading", "stated", "names"), list(reading_lists()))
def test_a_reading_list_is_as_long_as_it_says(heading, stated, names):
    """Within a tenth."""
    lines = sum(code_lines(ROOT / name) for name in names)
    assert abs(lines - stated) <= lines / 10, f"README, {heading!r}: these files have {lines} lines of code now"


def test_two_reading_lists_are_the_cores():
    cores = [names for _, _, names in reading_lists() if "backend/production/" not in names]
    assert [len(names) > 5 for names in cores] == [True, True]
