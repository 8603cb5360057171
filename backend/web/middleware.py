"""The middleware chain: each link takes the next and gives a handler of requests; `app.py` has their order in one list.

Outermost first. What a link learns it writes on the request; headers that any answer must carry, errors too, it adds to
`request.answer_headers`. Links refuse by raising, and `error_answers` turns that into the envelope.
"""

import logging
import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quote

from backend.domain import Caller
from backend.errors import AppError, InternalError, Unauthorized
from backend.infrastructure.logs import LogSink, iso_now, path_of, request_id
from backend.settings import Networks
from backend.web.client_address import client_address
from backend.web.request import Request
from backend.web.response import Response, error_response
from backend.web.router import Router

Handle = Callable[[Request], Response]
Middleware = Callable[[Handle], Handle]

log = logging.getLogger(__name__)


def chain(middleware: Sequence[Middleware], last: Handle) -> Handle:
    """One handler out of all links, the first outermost."""
    for link in reversed(middleware):
        last = link(last)
    return last


def request_ids(next_handler: Handle) -> Handle:
    """Every answer carries the request's id, every log line too; and no answer is to be sniffed."""

    def handle(request: Request) -> Response:
        token = request_id.set(request.id)
        try:
            response = next_handler(request)
        finally:
            request_id.reset(token)
        response.headers += request.answer_headers
        response.headers += (("X-Request-ID", request.id), ("X-Content-Type-Options", "nosniff"))
        return response

    return handle


def access_log(sink: LogSink, level: str) -> Middleware:
    """One line a request, of level INFO: none if `level` is higher. No header, body or query is in it, so no secret."""

    def link(next_handler: Handle) -> Handle:
        if level not in ("DEBUG", "INFO"):
            return next_handler

        def handle(request: Request) -> Response:
            began = time.perf_counter()
            response = next_handler(request)
            caller, endpoint, target = request.caller, request.endpoint, request.environ.get("RAW_URI") or request.path
            sink.put(
                f'{{"time":"{iso_now()}","level":"INFO","requestId":"{request.id}",'
                f'"method":{quote(request.method)},"path":{quote(path_of(target))},'
                f'"route":{quote(endpoint.route.path) if endpoint else "null"},'
                f'"status":{response.status},"ms":{(time.perf_counter() - began) * 1000:.2f},'
                f'"userId":{quote(caller.user.id) if caller else "null"},"client":"{request.client}",'
                f'"bytes":{len(response.body)}}}'
            )
            return response

        return handle

    return link


def error_answers(next_handler: Handle) -> Handle:
    """Every error as the envelope; the unforeseen as the same sentence always, its cause in the log alone."""

    def handle(request: Request) -> Response:
        try:
            return next_handler(request)
        except AppError as error:
            return error_response(error, request.id)
        except Exception:
            log.exception("unforeseen error")
            return error_response(InternalError(), request.id)

    return handle


def client_addresses(trusted: Networks) -> Middleware:
    """Who is at the other end, behind the proxies that we trust."""

    def link(next_handler: Handle) -> Handle:
        def handle(request: Request) -> Response:
            environ = request.environ
            peer = environ.get("REMOTE_ADDR") or ""
            request.client = client_address(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)
            return next_handler(request)

        return handle

    return link


def framing(next_handler: Handle) -> Handle:
    """What the server refuses before the application, whichever server this runs on."""

    def handle(request: Request) -> Response:
        request.check_framing()
        return next_handler(request)

    return handle


def routing(router: Router) -> Middleware:
    """Which endpoint is meant. That there is none is said only after the limit, which counts such requests too."""

    def link(next_handler: Handle) -> Handle:
        def handle(request: Request) -> Response:
            try:
                if request.method == "OPTIONS":
                    request.answer_headers.append(("Allow", router.allowed(request.path)))
                else:
                    request.endpoint, request.path_id = router.find(request.method, request.path)
            except AppError as error:
                request.refusal = error
            return next_handler(request)

        return handle

    return link


def authentication(identify: Callable[[str], Caller]) -> Middleware:
    """Who is asking, by `Authorization: Bearer …`. A refusal is kept for when the route is known to exist."""

    def link(next_handler: Handle) -> Handle:
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

    return link


def dispatch(request: Request) -> Response:
    """The chain's last: call the endpoint."""
    if request.refusal is not None:
        raise request.refusal
    if request.endpoint is None:
        return Response(204)  # OPTIONS
    return request.endpoint.call(request)
