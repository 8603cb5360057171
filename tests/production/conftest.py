"""Fixtures: the database of notes of tests/infrastructure, in production's implementation."""

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
