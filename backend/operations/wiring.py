"""Puts operations into the application: threads, routes and middleware beside the application's own."""

from collections.abc import Mapping
from dataclasses import replace

from app import Background, Tools
from backend.operations.housekeeping import Housekeeping
from backend.operations.in_flight import InFlight
from backend.operations.metrics_folder import has_metrics
from backend.operations.slow_writes import SlowWrites
from backend.settings import Settings
from backend.web.middleware import Middleware
from backend.web.router import ANYONE, Route


def with_operations(
    settings: Settings, tools: Tools, refused: Mapping[int, int], housekeeping: type[Housekeeping] = Housekeeping
) -> Tools:
    """The tools of one worker, with what operations add. Call it after the fork.

    `refused` is kept by the server: how many requests it has refused before the application saw them, by status.
    """
    in_flight = InFlight()
    tools.database.on_write.append(SlowWrites(in_flight).log_if_long)
    routes: list[Route] = []
    middleware: list[Middleware] = [in_flight.middleware]
    background: list[Background] = [housekeeping(settings, tools.database)]
    if has_metrics():
        from backend.operations.metrics import Metrics  # here, because prometheus_client may be missing

        metrics = Metrics(settings, tools, in_flight, refused)
        tools.database.on_write.append(metrics.count_write)
        routes.append(Route("GET", "/metrics", metrics.get_metrics, ANYONE))
        middleware.append(metrics.middleware)
        background.append(metrics)
    return replace(tools, routes=routes, middleware=middleware, background=background)
