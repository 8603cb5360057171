"""Each exercise is red before and green after, and whoever reads its lesson finds it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lessons import lesson

ROOT = Path(__file__).parents[2]
FOLDER = "tests/lessons/exercises"
FAST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # as in test_break_it.py

RED = {  # what each shows before
    "mass_assignment": r"6 of 6 protected fields changed, and Mallory became an admin",
    "n_plus_one": r"2 queries for 1 order, 101 for 100 orders",
    "negative_cache": r"100 requests for an absent product: 100 loads",
    "refresh": r"10 refreshes of one token at once: 10 successors",
    "retry": r"one payment of 100\.00, delivered 3 times: 300\.00 was paid",
    "sign_up": r"one e-mail, 20 users: 0 of 20 sign-ups were refused",
    "stale_cache": r"20 of 20 later reads show 2\.50, not 3\.00",
    "stampede": r"50 requests for one cold key: (?!1 )\d+ loads",
    "tie_breaker": r"of 250 products, 100 came and 150 are on no page",
    "transfer": r"1,000\.00 became 2,900\.00: 20 transfers of 100\.00 passed, 0 refused",
}


def run_checks(project: Path) -> "subprocess.CompletedProcess[str]":
    checks = [f"{FOLDER}/check_{name}.py" for name in RED]
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--tb=short", *checks]
    return subprocess.run(
        command, cwd=project, env=os.environ | FAST, capture_output=True, text=True, timeout=300, check=False
    )


def test_each_exercise_is_red_before_and_green_with_its_solution(copy):
    before = run_checks(copy)
    red = {name for name, shows in RED.items() if re.search(shows, before.stdout)}
    assert red == set(RED), before.stdout + before.stderr
    assert set(re.findall(r"^FAILED \S+/check_(\w+)\.py::", before.stdout, re.MULTILINE)) == set(RED)

    for name in RED:
        shutil.copy(copy / FOLDER / "solutions" / f"{name}.py", copy / FOLDER / f"{name}.py")
    after = run_checks(copy)
    assert after.returncode == 0, after.stdout + after.stderr
    assert re.search(r"^\d+ passed in ", after.stdout, re.MULTILINE)


def test_each_exercise_has_a_file_a_check_a_solution_a_lesson_and_a_row_on_the_leaders_page():
    page = (ROOT / "tests/lessons/README.md").read_text(encoding="utf-8")
    for name in RED:
        assert f"`make exercise L={name}`" in lesson(name).parts["Exercise"]
        assert f"`{FOLDER}/{name}.py`" in lesson(name).parts["Exercise"]
    assert set(re.findall(r"\| `make exercise L=(\w+)` \|", page)) == set(RED)
    checks = {f"check_{name}" for name in RED}
    assert {path.stem for path in (ROOT / FOLDER).glob("*.py")} == {*RED, *checks, "attack"}
    assert {path.stem for path in (ROOT / FOLDER / "solutions").glob("*.py")} == set(RED)


def test_make_test_leaves_the_checks_out():
    """They are red by design, and pytest collects only those that are named."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", FOLDER], cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert "no tests collected" in done.stdout
