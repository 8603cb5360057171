"""Every lesson is a test of both halves: the naive code breaks, and the service holds under the same attack."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lessons import PARTS, Stage, lesson, names

ROOT = Path(__file__).parents[2]
LESSONS = [lesson(name) for name in names()]


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


def test_a_lesson_is_shown_without_colour_where_no_terminal_is():
    done = run("transfer")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"naive  █+ +1,000\.00 became", done.stdout)
    assert "\033" not in done.stdout


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
