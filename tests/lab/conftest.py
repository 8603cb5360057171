"""Fixtures: the core's application with the lab in it, and the trace of the last request."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app import App
from backend.lab.report import report
from backend.lab.tracing import Tracing
from backend.lab.wiring import traced_app
from backend.settings import Limit, Settings
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
