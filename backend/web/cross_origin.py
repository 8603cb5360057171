"""CORS (the Fetch standard): exact origins, no credentials, headers on error responses too."""

from backend.web.middleware import Handler, Middleware
from backend.web.request import Request
from backend.web.response import Response

EXPOSED = "Link, Location, ETag, Retry-After, RateLimit, RateLimit-Policy, X-Request-ID, Idempotency-Replayed"
ALLOWED = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID"
METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
PREFLIGHT_SECONDS = "600"


def cross_origin(origins: frozenset[str]) -> Middleware:
    """Add the CORS headers to responses for `origins`. With no origins it does nothing."""

    def middleware(next_handler: Handler) -> Handler:
        if not origins:
            return next_handler

        def handle(request: Request) -> Response:
            headers, environ = request.response_headers, request.environ
            headers.append(("Vary", "Origin"))
            if environ.get("HTTP_ORIGIN") in origins:
                headers.append(("Access-Control-Allow-Origin", environ["HTTP_ORIGIN"]))
                headers.append(("Access-Control-Expose-Headers", EXPOSED))
                if request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
                    headers.append(("Access-Control-Allow-Methods", METHODS))
                    headers.append(("Access-Control-Allow-Headers", ALLOWED))
                    headers.append(("Access-Control-Max-Age", PREFLIGHT_SECONDS))
            return next_handler(request)

        return handle

    return middleware
