"""Function calls as spans: which functions a request runs, layer by layer, with their source.

The interpreter reports each call and return of a thread to the function that `sys.setprofile` sets. So the layers need
no wrapper and no line for the lab: middleware, router, handler wrapper, routes, services, repositories, tokens and
passwords appear because they run. Only the thread of a traced request is watched, and only while it serves it.

POINTS says which functions are spans. Private functions and generators are none: what a generator does between two
values belongs to its caller.
"""

import dis
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from backend.lab.trace import Span, Trace, current

BACKEND = f"{Path(__file__).parents[1]}/"
PUBLIC = r"[A-Za-z]\w*(\.[a-z]\w*)?"
# Layer, files, qualified names of the functions. The first group of a name, if there is one, is what is shown.
POINTS = [
    ("middleware", r"web/\w+", r"(.+?)\.<locals>.*\bhandle"),
    ("middleware", r"web/middleware", r"dispatch"),
    ("router", r"web/router", r"Router\.find"),
    ("handler", r"web/handler", r"(endpoint)\.<locals>\.call"),
    ("validation", r"web/schemas", r"read_\w+"),
    ("route", r"routes/\w+", r"[A-Z]\w+\.[a-z]\w+"),
    ("service", r"services/\w+", r"(?!Subscriber\.|is_)" + PUBLIC),
    ("repository", r"repositories/\w+", PUBLIC),
    ("token", r"infrastructure/tokens", r"Tokens\.[a-z]\w+"),
    ("password", r"infrastructure/passwords", r"Passwords\.(?!turn)[a-z]\w+"),
    ("cache", r"infrastructure/single_flight", r"SingleFlight\.run"),
]
RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}


class Point(NamedTuple):
    layer: str
    name: str
    code: CodeType


@contextmanager
def recorded() -> Iterator[Trace]:
    """Trace what this thread does in the block."""
    trace = Trace()
    token, before = current.set(trace), sys.getprofile()
    sys.setprofile(_Profile(trace))
    try:
        yield trace
    finally:
        sys.setprofile(before)
        current.reset(token)


class _Profile:
    """Begins and ends a span for each call of a function in POINTS."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return") or not frame.f_code.co_filename.startswith(BACKEND):
            return
        point = point_of(frame.f_code)
        if point is None:
            return
        if event == "call":
            self._trace.begin(Span(*point))
        else:  # an exception that leaves the function is reported as a return as well, at another instruction
            self._trace.end(failed=frame.f_code.co_code[frame.f_lasti] not in RETURNS)


@cache
def point_of(code: CodeType) -> Point | None:
    """The layer and the shown name of the function with this code; None if it is no span."""
    file, name = code.co_filename.removeprefix(BACKEND).removesuffix(".py"), code.co_qualname
    if code.co_flags & inspect.CO_GENERATOR:
        return None
    for layer, files, names in POINTS:
        if re.fullmatch(files, file) and (match := re.fullmatch(names, name)):
            shown = match[1] if match.lastindex and layer in ("middleware", "handler") else name
            return Point(layer, f"{Path(file).name}.{shown}" if layer == "repository" else shown, code)
    return None
