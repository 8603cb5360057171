"""Fixtures: production's wiring alone, and the database of notes of tests/infrastructure in its implementation."""

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
    """These tests are of what production alone promises, most over gunicorn: they run once."""
    return "production"
