"""Each exercise is red before and green after, and its lesson and the leader's page name it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lessons import lesson

ROOT = Path(__file__).parents[2]
FOLDER = "tests/lessons/exercises"
FAST = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}

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

HALF_RIGHT = {  # the first ideas of the leader's page, as changes of the solution: old, new, what the check shows
    "mass_assignment": (
        "body.keys() - EDITABLE",
        'body.keys() & {"roles", "active", "id", "version", "createdAt", "passwordHash"}',
        r"Mallory's credit is 1,000,000",
    ),
    "n_plus_one": (
        "SELECT id, total FROM orders ORDER BY id",
        "SELECT orders.id, total FROM orders JOIN items ON order_id = orders.id ORDER BY orders.id",
        r"FAILED \S+::test_each_order_has_its_own_items",
    ),
    "negative_cache": ("MISSING = object()", "MISSING = None", r"requests for an absent product: 100 loads"),
    "refresh": ("\n    raise Refused", "\n        raise Refused", r"refused, and the session lives on"),
    "retry": ('    db.execute("BEGIN IMMEDIATE")\n', "", r"delivered 3 times: 300\.00 was paid"),
    "sign_up": ("raise EmailTaken(email) from None", "raise", r"IntegrityError: UNIQUE constraint failed"),
    "stale_cache": ("if self.invalidations == before", "if True", r"20 of 20 later reads show 2\.50"),
    "stampede": ("setdefault(key,", 'setdefault("all",', r"their loads run one after the other"),
    "tie_breaker": ("(created_at, id) <", "(created_at, id) <=", r"\d+ rows came twice"),
    "transfer": ("BEGIN IMMEDIATE", "BEGIN", r"OperationalError: database is locked"),
}


def versions(folder: str) -> dict[str, str]:
    return {name: (ROOT / folder / f"{name}.py").read_text(encoding="utf-8") for name in RED}


def run_checks(project: Path, exercises: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Put these texts in the place of the exercises, and run all checks."""
    for name, text in exercises.items():
        (project / FOLDER / f"{name}.py").write_text(text, encoding="utf-8")
    checks = [f"{FOLDER}/check_{name}.py" for name in exercises]
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--tb=short", *checks]
    return subprocess.run(
        command, cwd=project, env=os.environ | FAST, capture_output=True, text=True, timeout=300, check=False
    )


def assert_all_red(done: "subprocess.CompletedProcess[str]", shows: dict[str, str]) -> None:
    assert {name for name in shows if re.search(shows[name], done.stdout)} == set(RED), done.stdout + done.stderr
    assert set(re.findall(r"^FAILED \S+/check_(\w+)\.py::", done.stdout, re.MULTILINE)) == set(RED), done.stdout


def test_each_exercise_is_red_before_and_green_with_its_solution(copy):
    """If it is red here: are exercises solved in this checkout? `git checkout tests/lessons/exercises` begins again."""
    assert_all_red(run_checks(copy, versions(FOLDER)), RED)
    after = run_checks(copy, versions(f"{FOLDER}/solutions"))
    assert after.returncode == 0, after.stdout + after.stderr


def test_half_a_solution_is_still_red(copy):
    half_right = versions(f"{FOLDER}/solutions")
    for name, (old, new, _) in HALF_RIGHT.items():
        assert half_right[name].count(old) == 1, name
        half_right[name] = half_right[name].replace(old, new)
    assert_all_red(run_checks(copy, half_right), {name: shows for name, (_, _, shows) in HALF_RIGHT.items()})


def test_each_exercise_has_a_file_a_check_a_solution_a_lesson_and_a_row_on_the_leaders_page():
    page = (ROOT / "tests/lessons/README.md").read_text(encoding="utf-8")
    for name, text in versions(FOLDER).items():
        assert f"\nRun: make exercise L={name}\n" in text
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
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
