"""The README's "Add a resource", followed literally in a copy of the repository, gives a resource that passes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(sql|python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"`((?:sql|backend|tests)/[\w/.]+\.(?:sql|py)|app\.py)`")
TRIED = (
    "tests/journeys/test_coupons.py", "tests/journeys/test_events.py", "tests/test_house_rules.py",
    "tests/test_access_matrix.py", "tests/openapi/test_openapi.py", "tests/repositories/test_query_plans.py",
)  # fmt: skip


def steps() -> list[tuple[str, str, str]]:
    """The section's blocks: language, text, and the last file named before the block."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Add a resource\n")[2].partition("\n## ")[0]
    found, name = [], ""
    before = 0
    for fence in FENCE.finditer(section):
        first_sentence = section[before : fence.start()].strip()
        name = (NAME.findall(first_sentence) or [name])[0]
        found.append((fence[1], fence[2], name))
        before = fence.end()
    return found


def follow(language: str, text: str, file: Path) -> None:
    """Create a file, append to one, or apply the added lines of a diff after its context."""
    if language != "diff":
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(old + text, encoding="utf-8")
        return
    context = "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] == " ")
    after = "".join(line[1:] for line in text.splitlines(keepends=True))
    old = file.read_text(encoding="utf-8")
    assert old.count(context) == 1, f"README: the context of this change is not in {file.name} once: {context}"
    file.write_text(old.replace(context, after), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("app.py", "pyproject.toml", "README.md", "backend", "sql", "tests"):
        source, target = ROOT / name, tmp_path / name
        ignored = shutil.ignore_patterns("__pycache__", "bench", "var")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    return tmp_path


def test_a_reader_who_follows_the_text_has_a_resource_that_passes(copy):
    for language, text, name in steps():
        follow(language, text, copy / name)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not production", *TRIED]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = subprocess.run([sys.executable, "-m", *tool], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
