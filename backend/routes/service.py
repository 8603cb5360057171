"""The service itself: `/healthz`, `/readyz`, `/openapi.json`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from backend.errors import AppError, Unavailable
from backend.web.handler import responds
from backend.web.request import Request
from backend.web.response import Response

log = logging.getLogger(__name__)

Checks = Mapping[str, Callable[[], None]]  # name → a check that raises on failure


@dataclass(frozen=True)
class Status:
    status: str


class ServiceRoutes:
    """`problems` returns what is wrong, by the failing check's name; `document` returns OpenAPI as JSON."""

    def __init__(self, problems: Callable[[], Mapping[str, str]], document: Callable[[], str]) -> None:
        self._problems = problems
        self._document = document
        self._openapi = b""

    @responds(200)
    def get_health(self, request: Request) -> Status:
        """Whether the process answers."""
        return Status("ok")

    @responds(200)
    def get_readiness(self, request: Request) -> Status:
        """Whether the service can work; if not, 503 names the failed checks. Results may be a second old."""
        failing = self._problems()
        if failing:
            raise Unavailable("The service is not ready.", details=failing)
        return Status("ok")

    @responds(200)
    def get_open_api(self, request: Request) -> Response:
        """This document, OpenAPI 3.1."""
        self._openapi = self._openapi or self._document().encode()
        return Response(200, self._openapi)


def problems_of(checks: Checks) -> dict[str, str]:
    """The failing checks by name, each with its error message."""
    return {name: problem for name, check in checks.items() if (problem := _problem(check))}


def _problem(check: Callable[[], None]) -> str | None:
    try:
        check()
    except AppError as error:
        return error.message
    except Exception as error:  # clients see only its type
        log.warning("a check of /readyz raised an unexpected error", exc_info=True)
        return type(error).__name__
    return None
