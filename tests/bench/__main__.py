"""`python -m tests.bench [--quick] [--only GROUP]`: measure, print, and rewrite the report if it has changed.

The exit status is 0 if everything was measured. A missed target is printed and is no error.
"""

import argparse
import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.bench.measure import FULL, QUICK, Figure, Size
from tests.bench.picture import picture
from tests.bench.report import Report
from tests.bench.targets import TARGETS

HERE = Path(__file__).parent
MODULES = {
    "in process": "in_process", "layers": "layers", "growth": "growth", "start-up": "start_up",
    "over gunicorn": "over_gunicorn", "writes": "writes", "on PostgreSQL": "on_postgres", "logins": "logins",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in two minutes, and no report is written")
    parser.add_argument("--only", choices=MODULES, action="append", help="this part alone, and no report is written")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as by Ctrl-C: every started process is stopped
    figures, failed = measure(options.only or list(MODULES), QUICK if options.quick else FULL)
    measured = {figure.group for figure in figures}
    targets = [target for target in TARGETS if target.of.group in measured or not options.only]
    report = Report(figures, targets)
    print(report.terminal())
    if not (options.quick or options.only or failed):
        keep(report)
    return int(failed)


def measure(groups: list[str], size: Size) -> tuple[list[Figure], bool]:
    """All figures, and whether a measurement failed. A failure is printed, and the others go on."""
    figures: list[Figure] = []
    failed = False
    began = time.monotonic()
    for group in groups:
        tell(f"{time.monotonic() - began:4.0f} s  {group}")
        try:
            for figure in importlib.import_module(f"tests.bench.{MODULES[group]}").figures(size):
                tell(f"{time.monotonic() - began:4.0f} s    {figure.name}")
                figures.append(figure)
        except Exception:
            traceback.print_exc()
            failed = True
    tell(f"{time.monotonic() - began:4.0f} s  done")
    return figures, failed


def keep(report: Report) -> None:
    """Write the report, unless only noise has changed."""
    page = HERE / "report.md"
    if page.exists() and report.only_noise_since(page.read_text(encoding="utf-8")):
        print("only noise changed: report.md stays as it is")
        return
    page.write_text(report.markdown(), encoding="utf-8")
    (HERE / "report.svg").write_text(picture(report.figures, report.targets), encoding="utf-8")


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
