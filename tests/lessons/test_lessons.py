"""Every lesson is a test of both halves: the naive code breaks, and the service holds under the same attack."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lessons import PARTS, Stage, lesson, names

ROOT = Path(__file__).parents[2]
LESSONS = [lesson(name) for name in names()]

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def verdicts(half, folder):
    with Stage(folder) as stage:
        return list(half(stage))


@pytest.mark.parametrize("each", LESSONS, ids=str)
def test_the_naive_code_breaks_and_the_service_holds(each, tmp_path):
    (tmp_path / "naive").mkdir()
    (tmp_path / "ours").mkdir()
    naive, ours = verdicts(each.naive, tmp_path / "naive"), verdicts(each.ours, tmp_path / "ours")
    assert [verdict.says for verdict in naive if verdict.holds] == [], "the naive code held"
    assert [verdict.says for verdict in ours if not verdict.holds] == [], "the service broke"
    assert len(naive) == len(ours) > 0


@pytest.mark.parametrize("each", LESSONS, ids=str)
def test_a_lesson_opens_with_its_parts(each):
    """In their order; the report is one that can be opened, and the files exist."""
    assert tuple(each.parts) == PARTS
    assert re.search(r"https://github\.com/\S+/(issues|pull)/\d+", each.parts["Bitten"])
    read = re.findall(r"`((?:backend|sql|app\.py)[\w/.]*)", each.parts["Read"])
    assert read and all((ROOT / name).exists() for name in read), read


def test_each_lesson_has_its_own_number_and_name():
    assert len({each.number for each in LESSONS}) == len({each.name for each in LESSONS}) == len(LESSONS)


def run(*arguments):
    command = [sys.executable, "-m", "tests.lessons", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_a_named_lesson_is_told_whole():
    """The sentence, what goes wrong and the report before the bars, the file and the exercise after them."""
    done = run("transfer")
    assert (done.returncode, done.stderr) == (0, "")
    parts = re.findall(r"^    (Catalogue|Goes wrong|Bitten|naive|ours|Read|Exercise)\b", done.stdout, re.MULTILINE)
    assert parts == ["Catalogue", "Goes wrong", "Bitten", "naive", "ours", "Read", "Exercise"]
    assert re.search(r"naive  █+ +1,000\.00 became", done.stdout)  # without colour, because this is no terminal


def test_on_a_terminal_a_lesson_has_colours():
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "tests.lessons", "envelope"]
    with subprocess.Popen(command, cwd=ROOT, stdout=its, env=os.environ | {"NO_COLOR": ""}):
        os.close(its)
        printed = b""
        with suppress(OSError):  # which Linux raises at the end
            while chunk := os.read(ours, 4096):
                printed += chunk
    os.close(ours)
    assert "\033[31m█" in printed.decode()


def test_tools_get_json():
    done = run("transfer", "--json")
    told = json.loads(done.stdout)
    assert (told["name"], {one["holds"] for one in told["naive"]}, {one["holds"] for one in told["ours"]}) == (
        "transfer", {False}, {True}
    )  # fmt: skip


def test_an_unknown_name_is_one_line_that_lists_the_names():
    done = run("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "nonsense" in done.stderr and "transfer" in done.stderr
