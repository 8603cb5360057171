"""Run lessons: `python -m tests.lessons [NAME…] [--json]`. Without a name all are run, and told in short."""

import argparse
import json
import logging
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.lessons import PARTS, Half, Lesson, Stage, Verdict, lesson, names

BEFORE, AFTER = PARTS[:3], PARTS[3:]  # of the bars
WIDTH = 20  # of the longest bar
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
    logging.getLogger("backend").addHandler(logging.NullHandler())  # the verdicts tell what the service refuses
    began = time.monotonic()
    right = [play(lesson(name), asked.json, whole=bool(asked.names)) for name in asked.names or names()]
    if not asked.json:
        print(f"\n{right.count(True)} of {len(right)} lessons as they should be, in {time.monotonic() - began:.0f} s.")
    sys.exit(0 if all(right) else 1)


def play(lesson: Lesson, as_json: bool, whole: bool) -> bool:
    """Run both halves and show them; whether the naive one broke and ours held."""
    if not as_json:
        print(f"\n{coloured(BOLD, f'{lesson.number:2}  {lesson.title}')}  ({lesson.name})", flush=True)
        tell(lesson, BEFORE if whole else ())
    began = time.monotonic()
    naive, ours = (run(half) for half in (lesson.naive, lesson.ours))
    if as_json:
        print(json.dumps(told(lesson, naive, ours, time.monotonic() - began), ensure_ascii=False), flush=True)
    else:
        draw(naive, ours)
        tell(lesson, AFTER if whole else ())
    return all(not verdict.holds for verdict in naive) and all(verdict.holds for verdict in ours)


def run(half: Half) -> Sequence[Verdict]:
    with tempfile.TemporaryDirectory() as folder, Stage(Path(folder)) as stage:
        return half(stage)


def told(lesson: Lesson, naive: Sequence[Verdict], ours: Sequence[Verdict], seconds: float) -> dict[str, object]:
    """The lesson for tools."""
    halves = {"naive": [asdict(verdict) for verdict in naive], "ours": [asdict(verdict) for verdict in ours]}
    return {"number": lesson.number, "name": lesson.name, "title": lesson.title, "seconds": round(seconds, 2), **halves}


def tell(lesson: Lesson, parts: Sequence[str]) -> None:
    for part in parts:
        print(textwrap.fill(f"{part}: {lesson.parts[part]}", 100, initial_indent="    ", subsequent_indent="      "))


def draw(naive: Sequence[Verdict], ours: Sequence[Verdict]) -> None:
    """A pair of bars for each attack."""
    for pair in zip(naive, ours, strict=True):
        longest = max(verdict.figure for verdict in pair) or 1
        for name, verdict in zip(("naive", "ours"), pair, strict=True):
            bar = "█" * round(verdict.figure / longest * WIDTH) or "▏"
            colour = GREEN if verdict.holds else RED
            print(f"    {name:5}  {coloured(colour, f'{bar:{WIDTH}}')}  {verdict.says}", flush=True)


def coloured(colour: str, text: str) -> str:
    """In colour on a terminal, unless NO_COLOR is set and not empty (no-color.org)."""
    return f"{colour}{text}{PLAIN}" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


if __name__ == "__main__":
    main()
