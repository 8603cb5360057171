"""A copy of the project, in which a test may break and repair what it likes."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("app.py", "pyproject.toml", "backend", "sql", "tests")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    for name in NAMES:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__", "bench")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    return folder
