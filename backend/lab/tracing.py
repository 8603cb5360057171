"""Middleware that traces each request, and adds the result to its answer as `Server-Timing`."""

from collections import OrderedDict

from backend.lab.calls import recorded
from backend.lab.report import server_timing
from backend.lab.trace import Trace, traced
from backend.web.middleware import Handle
from backend.web.request import Request
from backend.web.response import Response

KEPT = 200  # traces
OWN = "/lab"  # the paths of the lab itself, which are not traced


class Tracing:
    """Middleware that traces each request. `traces` are the last ones by the id of their request."""

    def __init__(self) -> None:
        self.traces: OrderedDict[str, Trace] = OrderedDict()

    def middleware(self, next_handler: Handle) -> Handle:
        def handle(request: Request) -> Response:
            if request.path.startswith(OWN):
                return next_handler(request)
            with recorded() as trace, traced("request", f"{request.method} {request.path}") as span:
                response = next_handler(request)
                span.detail["status"] = response.status
            self.traces[request.id] = trace
            while len(self.traces) > KEPT:
                self.traces.popitem(last=False)
            response.headers.append(("Server-Timing", server_timing(trace)))
            return response

        return handle
