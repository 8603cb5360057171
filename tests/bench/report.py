"""The report: a table for the terminal, the same in Markdown, and whether more than noise has changed."""

import os
import platform
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import groupby

from tests.bench.measure import OURS, Figure
from tests.bench.targets import Target, Verdict

Rows = Iterable[Sequence[str]]

COLUMNS = ("target", "measured", "spread", "verdict")
ROW = re.compile(
    r"^\| (?P<text>.+?) \| (?P<median>[\d.,inf]+) \| (?P<low>\S+) – (?P<high>\S+) \| (?P<word>[^,|]+)", re.M
)


class Report:
    """The figures of one run and the targets."""

    def __init__(self, figures: Sequence[Figure], targets: Sequence[Target]) -> None:
        self.figures, self.targets = figures, targets

    def terminal(self) -> str:
        tables = [_columns(group, header, rows) for group, header, rows in self._tables(" ")]
        tables += [_columns("targets", COLUMNS, self._verdicts())] if self.targets else []
        return "\n\n".join([*tables, LEGEND]) + "\n"

    def markdown(self) -> str:
        parts = [f"# Measured\n\n{machine()} `make bench` writes this page and the picture.\n\n![](report.svg)"]
        parts += [f"## targets\n\n{_markdown(COLUMNS, self._verdicts())}"]
        parts += [f"## {group}\n\n{_markdown(header, rows)}" for group, header, rows in self._tables("<br>")]
        return "\n\n".join([*parts, LEGEND]) + "\n"

    def only_noise_since(self, before: str) -> bool:
        """Whether all verdicts are those of the Markdown `before`, and each spread overlaps its former one.

        (Of five values each, spreads fail to overlap by chance once in 126 times; a median lies outside the other
        spread once in six.)
        """
        then, now = _read(before), _read(self.markdown())
        return then.keys() == now.keys() and all(_meet(then[text], now[text]) for text in now)

    def _tables(self, between: str) -> Iterator[tuple[str, Sequence[str], Rows]]:
        """For each group: its name, the header, and one row per figure."""
        for group, members in groupby(self.figures, lambda figure: figure.group):
            figures = list(members)
            contenders = list(dict.fromkeys(name for figure in figures for name in figure.rounds))
            rows = [[label(figure), *(_cell(figure, name, between) for name in contenders)] for figure in figures]
            yield group, [group, *contenders], rows

    def _verdicts(self) -> Rows:
        for target in self.targets:
            verdict: Verdict = target.verdict(self.figures)
            measured = verdict.measured
            numbers = (shown(measured.median), _range(*measured[1:])) if measured else ("–", "–")
            yield (target.text, *numbers, str(verdict))


LEGEND = """Each cell shows the median of all rounds and, in brackets, the minimum and maximum. The number after × is
the median ratio of *ours* to this contender in the same round; without *ours*, of this column to the first."""


def machine() -> str:
    """The cores and versions that the figures depend on; the machine is not named."""
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, gunicorn {version('gunicorn')}"
    return f"{cores} cores, {versions}."


def label(figure: Figure) -> str:
    """The figure's name, with the unit unless the name has it."""
    return figure.name if figure.unit in ("", "/s") else f"{figure.name}, {figure.unit}"


def shown(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(low: float, high: float) -> str:
    return f"{shown(low)} – {shown(high)}"


def _cell(figure: Figure, contender: str, between: str) -> str:
    if contender not in figure.rounds:
        return "–"
    own = f"{shown(figure.median(contender))} ({_range(*figure.spread(contender))})"
    base = OURS if OURS in figure.rounds else next(iter(figure.rounds))
    if contender == base:
        return own
    ratio = figure.ratio(OURS, contender) if base == OURS else figure.ratio(contender, base)
    return f"{own}{between}×{shown(ratio.median)}"


def _columns(title: str, header: Sequence[str], rows: Rows) -> str:
    """The table in aligned columns."""
    table = [[title, *header[1:]], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def _markdown(header: Sequence[str], rows: Rows) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def _read(markdown: str) -> dict[str, tuple[float, float, str]]:
    """The spread and verdict of each target in a report."""
    return {
        row["text"]: (_number(row["low"]), _number(row["high"]), row["word"].strip()) for row in ROW.finditer(markdown)
    }


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _meet(one: tuple[float, float, str], other: tuple[float, float, str]) -> bool:
    return one[2] == other[2] and one[0] <= other[1] and other[0] <= one[1]
