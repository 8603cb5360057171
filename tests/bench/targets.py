"""The targets of this service as data, judged by the figures of one run."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from tests.bench.measure import OURS, Figure, Ratio, ratio_of_rounds

Word = Literal["holds", "misses", "not measured"]


class Series(NamedTuple):
    """One contender's values in one figure."""

    group: str
    name: str
    contender: str = OURS

    def find(self, figures: Iterable[Figure]) -> Sequence[float] | None:
        """One value a round; None if they were not measured."""
        for figure in figures:
            if (figure.group, figure.name) == (self.group, self.name):
                return figure.rounds.get(self.contender)
        return None


class Verdict(NamedTuple):
    """The median decides; `close` means that not every round agrees with it."""

    word: Word
    measured: Ratio | None
    close: bool = False
    stretch: bool = False  # held as well

    def __str__(self) -> str:
        return self.word + ", within noise" * self.close + ", and the stretch" * self.stretch


@dataclass(frozen=True)
class Target:
    """`of`, or its ratio to `over` in the same rounds, must be `at_most` or `at_least` this value."""

    text: str
    of: Series
    over: Series | None = None
    at_most: float = math.inf
    at_least: float = -math.inf
    stretch: float | None = None  # a better value, reported if reached
    always: bool = False  # each round counts, not the median

    def verdict(self, figures: Iterable[Figure]) -> Verdict:
        figures = list(figures)
        of, over = self.of.find(figures), self.over.find(figures) if self.over else None
        if not of or (self.over and not over):
            return Verdict("not measured", None)
        measured = ratio_of_rounds(of, over or [1] * len(of))
        held = {value: self.at_least <= value <= self.at_most for value in measured}
        good = all(held.values()) if self.always else held[measured.median]
        close = len(set(held.values())) == 2 and not self.always
        return Verdict("holds" if good else "misses", measured, close, good and self._stretches(measured.median))

    def limit_on_scale(self, figures: Iterable[Figure]) -> float | None:
        """Where the limit lies in the unit of `of`; None if `over` was not measured."""
        over = self.over.find(figures) if self.over else [1]
        return self.limit * median(over) if over else None

    @property
    def limit(self) -> float:
        return self.at_most if self.at_most < math.inf else self.at_least

    def _stretches(self, value: float) -> bool:
        if self.stretch is None:
            return False
        return value <= self.stretch if self.at_most < math.inf else value >= self.stretch


FLASK, FASTAPI, POCKETBASE = "Flask + SQLAlchemy", "FastAPI + SQLAlchemy", "PocketBase"
USER, PRODUCTS, ORDERS = "one user: requests/s", "product page: requests/s", "order list: requests/s"
WRITES = "transfers/s, 16 clients"


def _times(group: str, name: str, contender: str, at_least: float) -> Target:
    """At least this many times the rate of another contender."""
    said = f"ahead of {contender}" if at_least == 1 else f"≥ {at_least:g} × {contender}"
    return Target(f"{name}: {said}", Series(group, name), Series(group, name, contender), at_least=at_least)


def _times_there(name: str, at_least: float) -> list[Target]:
    """On PostgreSQL, at least this many times the rate of each peer there."""
    figure, there = f"{name}, 16 clients: requests/s", ", PostgreSQL"
    return [
        Target(
            f"on PostgreSQL, {name}: ≥ {at_least:g} × {peer}", Series("on PostgreSQL", figure, f"{OURS}{there}"),
            Series("on PostgreSQL", figure, f"{peer}{there}"), at_least=at_least,
        )
        for peer in (FLASK, FASTAPI)
    ]  # fmt: skip


def _latency(clients: int) -> list[Target]:
    p99, p50, refused = (Series("writes", f"{name}, {clients} clients") for name in ("p99", "p50", "refused"))
    return [
        Target(f"transfers, {clients} clients: p99 ≤ 5 × p50", p99, p50, at_most=5),
        Target(f"transfers, {clients} clients: none refused", refused, at_most=0, always=True),
    ]


IN_PROCESS = Series("in process", "one user")
CPU = Series("over gunicorn", "one user: CPU")
PAGE = "page of 20 by cursor"

TARGETS = [
    Target(
        "one user, in process: ≤ 1.0 × Flask's empty hello-world", IN_PROCESS, IN_PROCESS._replace(contender="Flask"),
        at_most=1.0, stretch=0.75,
    ),
    Target(
        "one user: CPU ≤ 1.4 × the bare function's", CPU, CPU._replace(contender="bare WSGI"), at_most=1.4, stretch=1.2
    ),
    *(_times("over gunicorn", USER, peer, 3) for peer in (FLASK, FASTAPI)),
    *(_times("over gunicorn", ORDERS, peer, 5) for peer in (FLASK, FASTAPI)),
    *(_times("writes", WRITES, peer, 5) for peer in (FLASK, FASTAPI)),
    _times("writes", WRITES, "raw sqlite3", 0.5),
    *_latency(16),
    *_latency(64),
    *(_times("over gunicorn", name, POCKETBASE, 1) for name in (USER, PRODUCTS, ORDERS)),
    _times("writes", WRITES, POCKETBASE, 1),
    Target(
        "cursor page at a million rows: the last ≤ 1.2 × the first", Series("growth", PAGE, "grown, last page"),
        Series("growth", PAGE, "grown, first page"), at_most=1.2,
    ),
    Target(
        "cursor page at a million rows: the first ≤ 1.2 × a small ledger's",
        Series("growth", PAGE, "grown, first page"), Series("growth", PAGE, "small, first page"), at_most=1.2,
    ),
    *(
        Target(
            f"{name} beside a million rows: ≤ 1.5 × in a small database", Series("growth: writes", name, "grown"),
            Series("growth: writes", name, "small"), at_most=1.5,
        )
        for name in ("deposit", "order", "cancellation", "keyed transfer", "login")
    ),
    *_times_there("one user", 3), *_times_there("order list", 3),
    *_times_there("product page", 2), *_times_there("transfer", 2),
    Target(
        "on PostgreSQL, orders that pay one account, 64 clients: p99 ≤ 5 × p50",
        *(Series("on PostgreSQL", f"order, 64 clients: {name}", f"{OURS}, PostgreSQL") for name in ("p99", "p50")),
        at_most=5,
    ),
    Target("start-up to the first answer ≤ 0.5 s", Series("start-up", "first answer"), at_most=0.5),
    Target("RSS a worker ≤ 45 MB after load", Series("over gunicorn", "RSS a worker"), at_most=45),
]  # fmt: skip
