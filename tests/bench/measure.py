"""Measurements: contenders take turns in one run, and ratios compare values of the same round.

A machine's speed changes from run to run, so figures of different runs cannot be compared. The contenders therefore
take turns, each once a round, and the result is the ratio within each round: its median and its spread.
"""

import gc
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple, TypeVar

T = TypeVar("T")

OURS = "ours"  # the contender that all others are compared with


@dataclass(frozen=True)
class Size:
    """How much is measured. The time of a whole run follows from it: 8 minutes for FULL, 2 for QUICK."""

    rounds: int  # of each comparison
    seconds: float  # of one run of load
    clients: int  # of one run of load that reads
    rows: int  # of the ledger, once it has grown
    users: int  # once they have grown
    strangers: int  # distinct client addresses


FULL = Size(rounds=5, seconds=1.5, clients=16, rows=1_000_000, users=200_000, strangers=1_000_000)
QUICK = Size(rounds=2, seconds=0.4, clients=16, rows=50_000, users=10_000, strangers=50_000)


class Ratio(NamedTuple):
    """Median, least and greatest of the ratios of all rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One thing measured: for each contender, one value a round. A figure of "ours" alone is absolute."""

    group: str
    name: str
    unit: str
    rounds: Mapping[str, Sequence[float]]

    def median(self, contender: str = OURS) -> float:
        return median(self.rounds[contender])

    def spread(self, contender: str = OURS) -> tuple[float, float]:
        """The least and the greatest value."""
        return min(self.rounds[contender]), max(self.rounds[contender])

    def ratio(self, of: str, over: str) -> Ratio:
        """The ratio of the values of each round. A divisor of 0 makes it infinite; 0 / 0 is 1."""
        return ratio_of_rounds(self.rounds[of], self.rounds[over])


def ratio_of_rounds(of: Sequence[float], over: Sequence[float]) -> Ratio:
    """The ratio round by round of two series that were measured in turns."""
    ratios = [_divided(one, other) for one, other in zip(of, over, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def interleaved(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call each contender once a round. Each round starts with the next contender, so none is always first or last."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for start in range(rounds):
        for place in range(len(names)):
            name = names[(start + place) % len(names)]
            results[name].append(contenders[name]())
    return results


def microseconds(
    calls: Mapping[str, Callable[[], object]], number: int, turns: int, rounds: int
) -> dict[str, list[float]]:
    """Microseconds a call of each contender, for each round: the fastest of its turns of `number` calls.

    Turns are short and interleaved too, so that a quiet moment of the machine favours no contender.
    """
    timers = {name: partial(timeit.timeit, call, gc.enable, number=number) for name, call in calls.items()}
    taken = [interleaved(timers, turns) for _ in range(rounds)]  # (gc.enable: timeit would stop the collector)
    return {name: [min(round[name]) / number * 1e6 for round in taken] for name in calls}


def _divided(one: float, other: float) -> float:
    if other:
        return one / other
    return float("inf") if one else 1.0
