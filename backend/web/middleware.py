"""The middleware chain. Each middleware takes the next handler and returns a handler; `app.py` lists them in order.

A middleware stores its results as attributes of the request, and adds the headers of every response, error responses
included, to `request.response_headers`. It refuses a request by raising an AppError, which `error_responses` renders.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from backend.domain import Caller
from backend.errors import AppError, Contention, InternalError, Unauthorized
from backend.infrastructure.logs import path_of, request_id, trace_id, trace_id_of
from backend.settings import Networks
from backend.web.client_address import client_address
from backend.web.request import Request
from backend.web.response import Response, error_response
from backend.web.router import Router

RUNS = 4  # at most, of a request whose transactions lose races

Handler = Callable[[Request], Response]
Middleware = Callable[[Handler], Handler]

log = logging.getLogger(__name__)


def chain(middleware: Sequence[Middleware], last: Handler) -> Handler:
    """One handler of all `middleware`, the first outermost, around the handler `last`."""
    for wrap in reversed(middleware):
        last = wrap(last)
    return last


def request_ids(next_handler: Handler) -> Handler:
    """Put the request's id on every response and log line, and its trace id on log lines."""

    def handle(request: Request) -> Response:
        ids = request_id.set(request.id), trace_id.set(trace_id_of(request.environ.get("HTTP_TRACEPARENT", "")))
        try:
            response = next_handler(request)
        finally:
            request_id.reset(ids[0])
            trace_id.reset(ids[1])
        response.headers += [*request.response_headers, ("X-Request-ID", request.id)]
        return response

    return handle


def access_log(log_request: Callable[[Mapping[str, object]], None]) -> Middleware:
    """One log line a request. No header, body or query is in it, so no secret."""

    def middleware(next_handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            began = time.perf_counter()
            response = next_handler(request)
            caller, endpoint, target = request.caller, request.endpoint, request.environ.get("RAW_URI") or request.path
            log_request(
                {
                    "method": request.method,
                    "path": path_of(target),
                    "route": endpoint.route.path if endpoint else None,
                    "status": response.status,
                    "ms": round((time.perf_counter() - began) * 1000, 2),
                    "userId": caller.user.id if caller else None,
                    "client": request.client,
                    "bytes": len(response.body),
                }
            )
            return response

        return handle

    return middleware


def error_responses(next_handler: Handler) -> Handler:
    """Render errors as envelopes. Unexpected exceptions get a fixed message; only the log has the traceback."""

    def handle(request: Request) -> Response:
        try:
            return next_handler(request)
        except AppError as error:
            request.error = error
        except Exception:
            log.exception("unexpected error")
            request.error = InternalError()
        return error_response(request.error, request.id)

    return handle


def client_addresses(trusted: Networks) -> Middleware:
    """Set the client's address: the peer's, or the one that trusted proxies name."""

    def middleware(next_handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            environ = request.environ
            peer = environ.get("REMOTE_ADDR") or ""
            request.client = client_address(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)
            return next_handler(request)

        return handle

    return middleware


def framing(next_handler: Handler) -> Handler:
    """Refuse a body of unknown or excessive length, in case the server has not."""

    def handle(request: Request) -> Response:
        request.check_framing()
        return next_handler(request)

    return handle


def routing(router: Router) -> Middleware:
    """Find the endpoint. A 404 or 405 is kept for `dispatch`, so that the rate limits count such requests too."""

    def middleware(next_handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            try:
                if request.method == "OPTIONS":
                    request.response_headers.append(("Allow", router.allowed(request.path)))
                else:
                    request.endpoint, request.path_id = router.find(request.method, request.path)
            except AppError as error:
                request.refusal = error
            return next_handler(request)

        return handle

    return middleware


def authentication(identify: Callable[[str], Caller]) -> Middleware:
    """Identify the caller by `Authorization: Bearer …`. A 401 is kept for later: 404 and 405 come before it."""

    def middleware(next_handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            header = request.environ.get("HTTP_AUTHORIZATION")
            if header:
                try:
                    scheme, _, token = header.partition(" ")
                    if scheme.lower() != "bearer":
                        raise Unauthorized("invalid", "The Authorization header must hold a bearer token.")
                    request.caller = identify(token.strip(" "))
                except AppError as error:
                    request.auth_error = error
            return next_handler(request)

        return handle

    return middleware


def dispatch(request: Request) -> Response:
    """The last handler of the chain: call the endpoint, at most RUNS times if the request loses races.

    That is safe: the effects of a request are in its transaction, or follow the commit.
    """
    if request.refusal is not None:
        raise request.refusal
    if request.endpoint is None:
        return Response(204)  # OPTIONS
    for _ in range(RUNS - 1):
        with suppress(Contention):
            return request.endpoint.call(request)
    return request.endpoint.call(request)
