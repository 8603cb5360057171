"""The lessons: each breaks one pattern as a blog post writes it, and attacks the service's own code the same way.

A lesson is a file `lesson_NN_name.py` whose docstring has the parts PARTS. Its function `naive` attacks the short
version, which stands in the lesson alone; `ours` attacks the service in the same way. Each gets a `Stage` and returns a
verdict for each attack, in the same order. A lesson is right if every verdict of `naive` says that the invariant broke,
and every verdict of `ours` that it held. In `exercises/` the naive code of ten lessons waits to be repaired.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from backend.infrastructure.migrations import migrate
from backend.settings import Settings
from tests.conftest import SECRET, Api
from tests.wirings import make_app

PARTS = ("Catalogue", "Goes wrong", "Bitten", "Read", "Exercise")


@dataclass(frozen=True)
class Verdict:
    """The outcome of an attack."""

    holds: bool  # whether the invariant held
    figure: float  # the length of the bar: how much is wrong, or what it cost, in one unit for both halves
    says: str  # the invariant in numbers: "1,000.00 became 1,430.00"


def money(cents: float) -> str:
    """`143000` as `1,430.00`."""
    return f"{cents / 100:,.2f}"


@dataclass
class Stage:
    """Where one half of a lesson runs: an empty folder, and the service on a database in it."""

    folder: Path
    closing: ExitStack = field(default_factory=ExitStack)  # what the half opens and does not close itself

    @property
    def database(self) -> Path:
        """The service's database; the first use creates it."""
        path = self.folder / "app.db"
        if not path.exists():
            migrate(path)
        return path

    def api(self, wiring: str = "core", **changes: Any) -> Api:
        """A client of a new application, in this process, on the stage's database: two of them are two workers.

        Without limits and with fast passwords; `changes` are of its settings.
        """
        usual = {"jwt_secrets": (SECRET,), "bcrypt_rounds": 4, "rate_limit_default": None, "rate_limit_auth": None}
        usual |= {"development": True, "busy_timeout_seconds": 30.0}
        app = make_app(Settings(database_path=self.database, **usual | changes), wiring=wiring)
        self.closing.callback(app.close)
        return Api(app)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()


Half: TypeAlias = Callable[[Stage], Sequence[Verdict]]


class Lesson(NamedTuple):
    number: int
    name: str
    title: str  # one line
    parts: dict[str, str]  # by PARTS, each in one line
    naive: Half
    ours: Half

    def __str__(self) -> str:
        return f"{self.number:02}_{self.name}"


def names() -> list[str]:
    """The names of all lessons, in the order of their numbers."""
    return [path.stem.removeprefix("lesson_")[3:] for path in sorted(Path(__file__).parent.glob("lesson_*.py"))]


def lesson(name: str) -> Lesson:
    """The lesson of this name. Raises StopIteration if there is none."""
    path = next(Path(__file__).parent.glob(f"lesson_[0-9][0-9]_{name}.py"))
    module = importlib.import_module(f"{__name__}.{path.stem}")
    title, *paragraphs = re.sub(r"(?<!\n)\n(?!\n)", " ", (module.__doc__ or "").strip()).split("\n\n")
    parts = dict(paragraph.split(": ", 1) for paragraph in paragraphs)
    return Lesson(int(path.stem[7:9]), name, title, parts, module.naive, module.ours)
