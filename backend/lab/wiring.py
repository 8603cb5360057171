"""Puts the lab into the application: its seams in place of the core's tools, a trace of each request, and the page."""

from collections import OrderedDict
from dataclasses import replace

from app import App, Tools, core_tools
from backend.infrastructure.cache import LruCache, NoCache
from backend.lab.calls import recorded
from backend.lab.report import server_timing
from backend.lab.seams import TracedCache, TracedDatabase, TracedLimiter
from backend.lab.trace import Trace, traced
from backend.settings import Settings
from backend.web.middleware import Handle
from backend.web.request import Request
from backend.web.response import Response

KEPT = 200  # traces


class Tracing:
    """Middleware that traces each request. `traces` are the last ones by the id of their request."""

    def __init__(self) -> None:
        self.traces: OrderedDict[str, Trace] = OrderedDict()

    def middleware(self, next_handler: Handle) -> Handle:
        def handle(request: Request) -> Response:
            with recorded() as trace, traced("request", f"{request.method} {request.path}") as span:
                response = next_handler(request)
                span.detail["status"] = response.status
            self.traces[request.id] = trace
            while len(self.traces) > KEPT:
                self.traces.popitem(last=False)
            response.headers.append(("Server-Timing", server_timing(trace)))
            return response

        return handle


def traced_tools(settings: Settings, tracing: Tracing) -> Tools:
    """The core's tools with the seams of the lab, and the middleware that traces."""
    database = TracedDatabase(settings.database_path, settings.busy_timeout_seconds)
    return replace(
        core_tools(settings),
        database=database,
        cache=TracedCache(LruCache(database, settings.cache_size, settings.cache_ttl_seconds)),
        identities=TracedCache(NoCache(database)),
        limiter=TracedLimiter(),
        middleware=[tracing.middleware],
    )


def traced_app(settings: Settings, tracing: Tracing) -> App:
    """The core's application, traced."""
    return App(settings, traced_tools(settings, tracing))
