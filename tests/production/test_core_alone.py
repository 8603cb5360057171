"""The core runs alone: in a copy without production, its tests are collected, and a quick sample of them passes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ("pyproject.toml", "README.md", "Makefile", ".LICENSE", "app.py", "backend", "sql", "tests")
WITHOUT = (
    "backend/production", "backend/postgres", "backend/lab", "backend/gunicorn_conf.py", "tests/production",
    "tests/postgres", "tests/operations", "tests/lessons", "tests/lab", "tests/bench", "tests/contract",
)  # fmt: skip
SAMPLE = ("test_first_steps", "test_accounts_and_transfers", "test_all_or_nothing", "test_relay.py", "test_house_rules")
# The checkout is installed in this environment, so imports would find in it the modules that the copy lacks.
FORGET_THE_CHECKOUT = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""


def test_the_core_passes_without_production(tmp_path: Path) -> None:
    copy, customized = tmp_path / "copy", tmp_path / "customized"
    for name in CORE:
        put = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (copy / name).parent.mkdir(exist_ok=True)
        put(ROOT / name, copy / name)
    for name in WITHOUT:
        gone = copy / name
        shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(missing_ok=True)
    customized.mkdir()
    (customized / "sitecustomize.py").write_text(FORGET_THE_CHECKOUT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", " or ".join(SAMPLE)],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(customized)}, capture_output=True, text=True, timeout=1200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
