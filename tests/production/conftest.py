"""Fixtures: production's wiring alone, and the notes database of tests/infrastructure as a GroupCommitDatabase."""

import pytest

from backend.production.database import GroupCommitDatabase
from tests.infrastructure.conftest import (  # noqa: F401 - pytest finds them here
    database,
    make_database,
    notes_path,
    outsider,
    statements,
    write,
    written,
)


@pytest.fixture
def database_class() -> type[GroupCommitDatabase]:
    return GroupCommitDatabase


@pytest.fixture
def wiring() -> str:
    """These tests run once: they test what only production promises, most over gunicorn."""
    return "production"
