"""Middleware that lets only this machine in, and only pages of the lab itself.

The lab shows code and hands out tokens, so three checks stand before everything else:

  peer    It must be a loopback address, although the server listens on loopback alone.
  Host    It must name loopback. A page of another site whose name has been made to resolve to 127.0.0.1 (DNS
          rebinding) sends its own name.
  Origin  If a browser sends it, it must be the lab's own, and `Sec-Fetch-Site` must not name another site. Otherwise
          any page that the user visits could start a storm.

Not promised: protection from other users of this machine.
"""

import re

from backend.errors import Forbidden
from backend.settings import Networks
from backend.web.middleware import Handler
from backend.web.request import Request
from backend.web.response import Response, error_response

LOOPBACK = Networks("127.0.0.0/8, ::1")
OWN_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)


def loopback_only(next_handler: Handler) -> Handler:
    """Answer 403 to every request that is not from this machine and for this machine."""

    def handle(request: Request) -> Response:
        if is_own(request.environ):
            return next_handler(request)
        response = error_response(Forbidden("The lab serves its own pages on this machine alone."), request.id)
        response.headers.append(("X-Request-ID", request.id))
        return response

    return handle


def is_own(environ: dict[str, str]) -> bool:
    """Whether peer, `Host`, `Origin` and `Sec-Fetch-Site` are of this machine."""
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    return (
        environ.get("REMOTE_ADDR", "") in LOOPBACK
        and OWN_HOST.fullmatch(host) is not None
        and origin in (None, f"http://{host}")
        and environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin")
    )
