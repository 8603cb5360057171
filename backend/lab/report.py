"""A trace as JSON, for the page, and as a tree of lines, for a terminal.

Each statement gets its query plan, which another connection asks SQLite for after the request: EXPLAIN QUERY PLAN runs
nothing. Each span gets the place of its code, and the report the text of each such place.
"""

import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from backend.infrastructure.database import Database, Tx
from backend.lab.trace import Span, Trace

ROOT = Path(__file__).parents[2]
MILLISECOND = 1e6  # nanoseconds
PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE")


def report(trace: Trace, database_path: Path) -> dict[str, Any]:
    """The spans in order, each with its depth, its times in milliseconds, and its detail; and the sources."""
    codes = {place(span.code): span.code for span in trace.spans if span.code}
    began, database = trace.spans[0].began, Database(database_path)
    with database.read() as tx:
        tx.run("PRAGMA foreign_keys = OFF")  # else a plan shows also what checks of foreign keys would do
        spans = [_as_json(span, began, tx) for span in trace.spans]
    database.close()
    layers = {layer: round(seconds * 1000, 3) for layer, seconds in trace.seconds_by_layer().items()}
    return {"spans": spans, "layers": layers, "sources": {where: source(code) for where, code in codes.items()}}


def _as_json(span: Span, began: int, tx: Tx) -> dict[str, Any]:
    sql = str(span.detail.get("sql", ""))
    plan = {"plan": plan_of(tx, sql, span.detail["parameters"])} if sql.startswith(PLANNED) else {}
    return {
        "layer": span.layer, "name": span.name, "depth": span.depth, "failed": span.failed,
        "start": round((span.began - began) / MILLISECOND, 3), "ms": round((span.ended - span.began) / MILLISECOND, 3),
        "place": place(span.code) if span.code else None, "detail": span.detail | plan,
    }  # fmt: skip


def plan_of(tx: Tx, sql: str, names: Any) -> list[str]:
    """What SQLite says of the statement. The plan does not depend on the parameters' values, so they are NULL."""
    return [str(row[3]) for row in tx.rows(f"EXPLAIN QUERY PLAN {sql}", **dict.fromkeys(names))]


def place(code: CodeType) -> str:
    """`backend/services/ledger.py:85`"""
    return f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_firstlineno}"


def source(code: CodeType) -> str:
    """The lines of the function, or the line of the lambda."""
    return textwrap.dedent(inspect.getsource(code))


def server_timing(trace: Trace) -> str:
    """The value of a `Server-Timing` header (W3C): the milliseconds of each layer by itself, and its outcomes."""
    outcomes: defaultdict[str, list[str]] = defaultdict(list)
    for span in trace.spans:
        outcomes[span.layer] += [span.detail["outcome"]] if "outcome" in span.detail else []
    return ", ".join(
        f'{layer.replace(" ", "-")};dur={seconds * 1000:.3f};desc="{"; ".join(outcomes[layer])}"'.removesuffix(
            ';desc=""'
        )
        for layer, seconds in trace.seconds_by_layer().items()
    )


def tree(report: dict[str, Any]) -> Iterator[str]:
    """The spans as lines: milliseconds, layer, and the name indented by its depth, with its outcome."""
    for span in report["spans"]:
        detail, indent = span["detail"], "  " * span["depth"]
        notes = [f"→ {detail['outcome']}"] if "outcome" in detail else []
        notes += [f"({detail[count]} {count})" for count in ("rows", "changed", "times") if count in detail]
        notes += ["✗"] if span["failed"] else []
        yield f"{span['ms']:9.3f}  {span['layer']:12}  {indent}{span['name']}  {'  '.join(notes)}".rstrip()
        yield from (f"{'':9}  {'':12}  {indent}  · {step}" for step in detail.get("plan", ()))
