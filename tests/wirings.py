"""The application as the core wires it and as production does, for the tests that both must pass."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from app import App, Tools, core_tools
from backend.infrastructure.logs import LogSink
from backend.infrastructure.rate_limiter import RateLimiter
from backend.settings import Settings

NOWHERE = LogSink(-1, limit=0)


def _production_tools(*arguments: Any) -> Tools:
    from backend.production.wiring import production_tools  # the core's tests run without it

    return production_tools(*arguments)


WIRINGS = {"core": core_tools} | ({"production": _production_tools} if find_spec("backend.production") else {})


def make_app(settings: Settings, *clock: Any, wiring: str = "core", **tools: Any) -> App:
    """An application with a limiter of its own and without an access log, if `tools` does not say otherwise."""
    own = {"limiter": RateLimiter(slots=1024), "log": NOWHERE}
    return App(settings, replace(WIRINGS[wiring](settings, *clock), **own | tools))
