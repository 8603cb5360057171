"""The engine that DATABASE_URL names, as commands use it: SQLite, or PostgreSQL, which is imported only then."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from backend.infrastructure import migrations
from backend.settings import Settings

CreateApp = Callable[[Settings], Any]


@dataclass(frozen=True)
class Engine:
    """What differs between engines. The functions raise SettingsError, SchemaMismatch, Unavailable."""

    settings: Settings
    create_app: CreateApp  # with the core's tools
    migrate: Callable[[], list[str]]  # brings the database to the newest schema; the names of the applied files
    write_gate: Callable[[], AbstractContextManager[None]]  # held while a command writes beside a server


def engine_of(settings: Settings, create_app: CreateApp) -> Engine:
    """`create_app` makes the application on SQLite."""
    if settings.postgres_url is None:
        path = settings.database_path
        migrate = partial(_migrate, migrations.migrate, migrations.check_schema, path)
        return Engine(settings, create_app, migrate, partial(migrations.write_gate, path))
    from backend.postgres import migrations as of_postgres
    from backend.postgres import wiring

    migrate = partial(_migrate, of_postgres.migrate, of_postgres.check_schema, settings.postgres_url)
    return Engine(settings, wiring.create_core_app, migrate, nullcontext)


def _migrate(migrate: Callable[[Any], list[str]], check_schema: Callable[[Any], None], database: Any) -> list[str]:
    applied = migrate(database)
    check_schema(database)  # raises for a newer schema, which `migrate` leaves as it is
    return applied
