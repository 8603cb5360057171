"""Every change of `break_it.py`, made in a copy, turns its test red, for the reason that is named beside it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lessons.break_it import BREAK_IT

ROOT = Path(__file__).parents[2]
FAST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # these tests need no plugin, and loading them takes half a second


@pytest.mark.parametrize("each", BREAK_IT, ids=lambda each: each.pattern)
def test_the_change_turns_its_test_red(copy, each):
    file = copy / each.file
    good = file.read_text(encoding="utf-8")
    assert good.count(each.old) == 1, f"{each.file} has changed: correct this entry of tests/lessons/break_it.py"
    file.write_text(good.replace(each.old, each.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", each.test]
        done = subprocess.run(
            command, cwd=copy, env=os.environ | FAST, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        file.write_text(good, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"FAILED {each.test}" in done.stdout
    assert each.shows in done.stdout, done.stdout
    assert " passed" not in done.stdout.splitlines()[-1]


def test_the_list_has_a_number_a_file_and_a_command_for_each():
    done = subprocess.run(
        [sys.executable, "-m", "tests.lessons.break_it"], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    assert [line.split()[0] for line in done.stdout.splitlines()] == [f"{n}" for n in range(1, len(BREAK_IT) + 1)]


def test_one_of_them_is_shown_with_its_line_and_its_command():
    done = subprocess.run(
        [sys.executable, "-m", "tests.lessons.break_it", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    assert all(text in done.stdout for text in (BREAK_IT[1].file, BREAK_IT[1].old, BREAK_IT[1].new, BREAK_IT[1].test))


@pytest.mark.parametrize("number", ["0", "99", "x", "-1"])
def test_another_number_is_one_line_and_status_2(number):
    done = subprocess.run(
        [sys.executable, "-m", "tests.lessons.break_it", number], cwd=ROOT, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"There is no number {number}: they go from 1 to {len(BREAK_IT)}.\n"


def test_the_leaders_page_names_changes_by_their_number_and_lessons_that_exist():
    page = (ROOT / "tests/lessons/README.md").read_text(encoding="utf-8")
    named = re.findall(r"`break_it (\d+)` \(([^)]+)\)", page)
    assert len(named) > 10
    assert named == [(number, BREAK_IT[int(number) - 1].pattern) for number, _ in named]
    lessons = {path.stem.split("_", 2)[2] for path in (ROOT / "tests/lessons").glob("lesson_*.py")}
    assert set(re.findall(r"\bL=(\w+)", page)) <= lessons
