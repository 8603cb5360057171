"""Middleware that traces each request, and adds the result to its answer as `Server-Timing`.

A request with the header `X-Lab-Slow-Load` has loads into the cache that take so many seconds more: a row of SQLite
loads in 0.05 ms, so concurrent requests would hardly ever meet in one load.
"""

import re
from collections import OrderedDict

from backend.lab.calls import recorded
from backend.lab.report import server_timing
from backend.lab.trace import Trace, traced
from backend.web.middleware import Handler
from backend.web.request import Request
from backend.web.response import Response

SLOW_LOAD = "X-Lab-Slow-Load"
SECONDS = re.compile(r"0\.[0-9]{1,3}")
KEPT = 200  # traces


class Tracing:
    """Middleware that traces each request, but not those to the page `own` and below it.

    `traces` are the last ones by the id of their request.
    """

    def __init__(self, own: str | None = None) -> None:
        self._own = own
        self.traces: OrderedDict[str, Trace] = OrderedDict()

    def middleware(self, next_handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            if self._own and f"{request.path}/".startswith(f"{self._own}/"):
                return next_handler(request)
            seconds = request.environ.get("HTTP_X_LAB_SLOW_LOAD", "")
            with recorded() as trace, traced("request", f"{request.method} {request.path}") as span:
                trace.slow_load = float(seconds) if SECONDS.fullmatch(seconds) else 0.0
                response = next_handler(request)
                span.detail["status"] = response.status
            self.traces[request.id] = trace
            while len(self.traces) > KEPT:
                self.traces.popitem(last=False)
            response.headers.append(("Server-Timing", server_timing(trace)))
            return response

        return handle
