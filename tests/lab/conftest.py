"""Fixtures: the core's application with the lab in it, and the trace of the last request."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import App
from backend.lab.report import report
from backend.lab.tracing import Tracing
from backend.lab.wiring import traced_app
from backend.settings import Limit, Settings
from tests.cli.running import COMMAND, environment
from tests.conftest import Api


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def api(settings: Settings, tracing: Tracing, no_wait_for_the_disk: None) -> Iterator[Api]:
    app: App = traced_app(replace(settings, rate_limit_default=Limit(1000, 60)), tracing)
    yield Api(app)
    app.close()


@pytest.fixture
def seen(tracing: Tracing, settings: Settings) -> Callable[[Any], dict[str, Any]]:
    """`seen(answer)`: the report of the request that was answered so."""
    return lambda answer: report(tracing.traces[answer.headers["X-Request-ID"]], settings.database_path)


@contextlib.contextmanager
def lab_server(folder: Path, **settings: str) -> Iterator[tuple[str, int]]:
    """The address of a running `python app.py lab`. SIGTERM ends it, and with it the servers that it has started."""
    defaults = {"BIND": "127.0.0.1:0", "RATE_LIMIT_DEFAULT": "100/60", "BUSY_TIMEOUT_SECONDS": "300",
                "REFRESH_GRACE_SECONDS": "300"}  # fmt: skip
    given = environment(folder / "app.db", **defaults | settings)
    with (folder / "errors.log").open("w") as errors, subprocess.Popen(
        [*COMMAND, "lab"], env=given, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            match = re.search(r":(\d+)/docs", lines[1])
            assert match, (lines, (folder / "errors.log").read_text())
            yield "127.0.0.1", int(match[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
