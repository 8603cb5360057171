"""Run lessons: `python -m tests.lessons [NAME…] [--json]`; without a name, all of them."""

import argparse
import json
import os
import sys
import tempfile
import textwrap
import time
from dataclasses import asdict
from pathlib import Path

from tests.lessons import Lesson, Stage, Verdict, lesson, names

WIDTH = 28  # of the longest bar
RED, GREEN, BOLD, PLAIN = "\033[31m", "\033[32m", "\033[1m", "\033[0m"


def main() -> None:
    """Exits with 1 if a lesson does not show what it should, and with 2 and one line for a name that is unknown."""
    parser = argparse.ArgumentParser(prog="python -m tests.lessons", description="Break each pattern, then see it hold")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all of them without one")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each lesson")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names()):
        print(f"There is no lesson {', '.join(sorted(unknown))}, but: {', '.join(names())}.", file=sys.stderr)
        sys.exit(2)
    show = as_json if asked.json else as_text
    shown = [play(lesson(name), show) for name in asked.names or names()]
    sys.exit(0 if all(shown) else 1)


def play(lesson: Lesson, show) -> bool:
    """Run both halves and show them; whether the naive one broke and ours held."""
    began = time.monotonic()
    naive, ours = (run(half) for half in (lesson.naive, lesson.ours))
    show(lesson, naive, ours, time.monotonic() - began)
    return all(not verdict.holds for verdict in naive) and all(verdict.holds for verdict in ours)


def run(half) -> list[Verdict]:
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        return list(half(stage))


def as_json(lesson: Lesson, naive: list[Verdict], ours: list[Verdict], seconds: float) -> None:
    told = {"number": lesson.number, "name": lesson.name, "title": lesson.title, "seconds": round(seconds, 2)}
    halves = {"naive": naive, "ours": ours}
    told |= {name: [asdict(verdict) for verdict in verdicts] for name, verdicts in halves.items()}
    print(json.dumps(told, ensure_ascii=False), flush=True)


def as_text(lesson: Lesson, naive: list[Verdict], ours: list[Verdict], seconds: float) -> None:
    """The title, a pair of bars for each attack, and where to go on."""
    print(f"\n{coloured(BOLD, f'{lesson.number:2}  {lesson.title}')}  ({lesson.name}, {seconds:.1f} s)")
    for pair in zip(naive, ours, strict=True):
        longest = max(verdict.figure for verdict in pair) or 1
        for name, verdict in zip(("naive", "ours"), pair, strict=True):
            bar = "█" * round(verdict.figure / longest * WIDTH) or "▏"
            colour = GREEN if verdict.holds else RED
            print(f"    {name:5}  {coloured(colour, f'{bar:{WIDTH}}')}  {verdict.says}")
    for part in ("Read", "Exercise"):
        print(textwrap.fill(f"{part}: {lesson.parts[part]}", 100, initial_indent="    ", subsequent_indent="      "))
    sys.stdout.flush()


def coloured(colour: str, text: str) -> str:
    """In colour on a terminal, unless NO_COLOR is set (no-color.org)."""
    return f"{colour}{text}{PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


if __name__ == "__main__":
    main()
