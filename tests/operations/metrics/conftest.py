"""Fixtures: the application with operations, as one worker of production has it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app import App
from backend.infrastructure.logs import log_request
from backend.operations.wiring import with_operations
from backend.production.rate_limiter import SharedRateLimiter
from backend.production.wiring import production_tools
from backend.settings import Settings
from tests.conftest import Api, Clock
from tests.operations.metrics.scraping import Scrape


@pytest.fixture
def wiring() -> str:
    """Operations belong to production."""
    return "production"


@pytest.fixture
def refused() -> Counter[int]:
    """What the server has refused."""
    return Counter()


@pytest.fixture
def make_api(settings: Settings, clock: Clock, refused: Counter[int]) -> Iterator[Callable[..., Api]]:
    """Applications on the test's database: `make_api(cache_size=0, …)` changes settings."""
    made: list[App] = []

    def make(**changes: Any) -> Api:
        changed = replace(settings, **changes)
        tools = replace(
            production_tools(changed, clock), limiter=SharedRateLimiter(capacity=1024), log_request=log_request
        )
        made.append(App(changed, with_operations(changed, tools, refused)))
        return Api(made[-1])

    yield make
    for app in made:
        app.close()


@pytest.fixture
def scrape_of(clock: Clock) -> Callable[[Api], Callable[[], Scrape]]:
    """Scrapes of an application that show what has been counted until now."""

    def scrape_of(api: Api) -> Callable[[], Scrape]:
        def scrape() -> Scrape:
            clock.advance(2)  # so that the last text is too old
            answer = api.get("//metrics")
            return Scrape(answer.status_code, {name.lower(): value for name, value in answer.headers}, answer.text)

        return scrape

    return scrape_of


@pytest.fixture
def scrape(scrape_of: Callable[[Api], Callable[[], Scrape]], api: Api) -> Callable[[], Scrape]:
    """Scrapes of the test's application."""
    return scrape_of(api)
