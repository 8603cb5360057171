"""What happened in one request: a list of spans, in the order in which they began.

A span is a call of a function, an SQL statement, a COMMIT. `calls.py` opens spans for function calls, `seams.py` for
what the database, the caches and the limiter do. Both add to the trace of the current context, so concurrent requests
do not mix. Without a current trace, spans are opened and forgotten.

Not promised: true speed. Each call of a function costs a traced request up to a microsecond more.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

current: "ContextVar[Trace | None]" = ContextVar("trace", default=None)


@dataclass
class Span:
    """Times are nanoseconds of `time.perf_counter_ns`. `code` is what ran, None if it is not Python's."""

    layer: str
    name: str
    code: CodeType | None = None
    depth: int = 0
    began: int = 0
    ended: int = 0
    failed: bool = False
    detail: dict[str, Any] = field(default_factory=dict)  # JSON, without secrets


class Trace:
    """The spans of one request. Used by the thread that serves it; read by others once it has ended."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.slow_load = 0.0  # seconds that a load into the cache takes more
        self._open: list[Span] = []

    def begin(self, span: Span) -> None:
        span.depth, span.began = len(self._open), time.perf_counter_ns()
        self.spans.append(span)
        self._open.append(span)

    def end(self, failed: bool = False) -> None:
        """End the innermost open span."""
        span = self._open.pop()
        span.ended, span.failed = time.perf_counter_ns(), failed

    def inside(self, span: Span) -> list[Span]:
        """The spans that began in `span`, at any depth."""
        inner = []
        for each in self.spans[self.spans.index(span) + 1 :]:
            if each.depth <= span.depth:
                break
            inner.append(each)
        return inner

    def seconds_by_layer(self) -> dict[str, float]:
        """How long each layer worked itself, without the spans inside: the values add up to the whole."""
        seconds: defaultdict[str, float] = defaultdict(float)
        outer: list[Span] = []
        for span in self.spans:
            del outer[span.depth :]
            duration = (span.ended - span.began) / 1e9
            seconds[span.layer] += duration
            if outer:
                seconds[outer[-1].layer] -= duration
            outer.append(span)
        return dict(seconds)


@contextmanager
def traced(layer: str, name: str, code: CodeType | None = None, **detail: Any) -> Iterator[Span]:
    """A span around the block, in the current trace if there is one. The block may add to its `detail`."""
    span, trace = Span(layer, name, code, detail=detail), current.get()
    if trace is None:
        yield span
        return
    trace.begin(span)
    try:
        yield span
    except BaseException:
        trace.end(failed=True)
        raise
    trace.end()
