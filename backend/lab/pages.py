"""`/lab`: the page, its files, and what it asks for: users, traces, storms."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from backend.errors import Conflict, NotFound, ValidationFailed
from backend.lab.logins import PasswordlessLogins
from backend.lab.report import report
from backend.lab.seed import tokens_and_ids
from backend.lab.storms import STORMS, Storm, run
from backend.lab.targets import TARGETS, Targets
from backend.lab.tracing import Tracing
from backend.openapi.page import CONTENT_POLICY, HTML, SCRIPT, STYLE
from backend.web.constraints import Choice, Text
from backend.web.handler import responds
from backend.web.request import Request
from backend.web.response import JSON, Response
from backend.web.router import ANYONE, Route

FOLDER = Path(__file__).parent / "page"


@dataclass(frozen=True)
class TraceQuery:
    request: Annotated[str, Text(1, 64)] = ""  # the id of the request


@dataclass(frozen=True)
class StormToRun:
    storm: Annotated[str, Choice(tuple(STORMS))]
    target: Annotated[str, Choice(TARGETS)]


class LabRoutes:
    """Thread-safe. The URL table lists every file, so no part of a request's path reaches the file system."""

    def __init__(self, tracing: Tracing, logins: PasswordlessLogins, targets: Targets, database_path: Path) -> None:
        self._tracing, self._logins, self._targets, self._path = tracing, logins, targets, database_path
        self._one_storm = threading.Lock()  # storms of two browsers at once would disturb each other's figures

    def table(self) -> list[Route]:
        return [
            Route("GET", "/lab", self.get_lab_page, ANYONE),
            Route("GET", "/lab/lab.css", self.get_lab_style, ANYONE),
            Route("GET", "/lab/lab.js", self.get_lab_script, ANYONE),
            Route("GET", "/lab/xray.js", self.get_xray_script, ANYONE),
            Route("GET", "/lab/storms.js", self.get_storms_script, ANYONE),
            Route("GET", "/lab/users", self.list_lab_users, ANYONE),
            Route("GET", "/lab/trace", self.get_trace, ANYONE),
            Route("GET", "/lab/storms", self.list_storms, ANYONE),
            Route("POST", "/lab/storms", self.run_storm, ANYONE),
        ]

    @responds(200, media=HTML)
    def get_lab_page(self, request: Request) -> Response:
        """The lab."""
        return _file("page.html", HTML)

    @responds(200, media=STYLE)
    def get_lab_style(self, request: Request) -> Response:
        """The style of the lab."""
        return _file("lab.css", STYLE)

    @responds(200, media=SCRIPT)
    def get_lab_script(self, request: Request) -> Response:
        """The script of the lab."""
        return _file("lab.js", SCRIPT)

    @responds(200, media=SCRIPT)
    def get_xray_script(self, request: Request) -> Response:
        """The script that shows a request from inside."""
        return _file("xray.js", SCRIPT)

    @responds(200, media=SCRIPT)
    def get_storms_script(self, request: Request) -> Response:
        """The script that draws storms."""
        return _file("storms.js", SCRIPT)

    @responds(200)
    def list_lab_users(self, request: Request) -> Response:
        """The active users of the lab, each with a new token, and the ids that the examples name."""
        return _json(tokens_and_ids(self._logins))

    @responds(200, NotFound)
    def get_trace(self, request: Request, query: TraceQuery) -> Response:
        """What a recent request did."""
        trace = self._tracing.traces.get(query.request)
        if trace is None:
            raise NotFound("There is no trace of such a request; the lab keeps the last ones only.")
        return _json(report(trace, self._path))

    @responds(200)
    def list_storms(self, request: Request) -> Response:
        """The storms, and the targets of each."""
        return _json(
            {
                name: {"title": storm.title, "promise": storm.promise, "targets": targets_of(storm)}
                for name, storm in STORMS.items()
            }
        )

    @responds(200, ValidationFailed, Conflict)
    def run_storm(self, request: Request, body: StormToRun) -> Response:
        """Send the storm, once no other storm runs, and measure whether the promise held."""
        if body.target not in targets_of(STORMS[body.storm]):
            raise ValidationFailed({"target": "must be lab for this storm"})
        address = request.environ["SERVER_NAME"], int(request.environ["SERVER_PORT"])
        with self._one_storm:
            return _json(run(body.storm, self._targets.client(body.target, address)))


def targets_of(storm: Storm) -> tuple[str, ...]:
    return TARGETS[:1] if storm.lab_only else TARGETS


def _file(name: str, media: str) -> Response:
    return Response(200, (FOLDER / name).read_bytes(), media, "no-store", CONTENT_POLICY)


def _json(data: Any) -> Response:
    return Response(200, json.dumps({"data": data}, ensure_ascii=False).encode(), JSON)
