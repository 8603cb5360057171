"""Puts PostgreSQL into the application, in place of SQLite: beside the core's tools, or beside production's."""

import atexit
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from app import App, Tools, core_tools
from backend.infrastructure import logs
from backend.infrastructure.cache import NoCache
from backend.operations.in_time import InTime
from backend.operations.wiring import with_operations
from backend.postgres.database import PostgresDatabase
from backend.postgres.housekeeping import HostsHousekeeping
from backend.postgres.migrations import check_schema, check_schema_of
from backend.postgres.passwords import BriefPasswords
from backend.postgres.rate_limiter import HostsRateLimiter
from backend.production import log_queue
from backend.production.error_responses import refused
from backend.production.passwords import shared_password_locks
from backend.production.rate_limiter import shared_limiter
from backend.settings import Settings, SettingsError

CLOCK_SKEW_SECONDS = 1.0  # NTP keeps hosts within milliseconds


def create_app(settings: Settings | None = None) -> App:
    """The application of one worker. Raises SchemaMismatch for a database that is not migrated.

    The server may be away when a worker starts: gunicorn's master, which has checked it, ends if a worker cannot start.
    """
    settings = settings or Settings.from_environment()
    log_queue.configure(settings.log_level)
    with suppress(SettingsError):
        check_schema(settings.postgres_url or "")
    return App(settings, with_operations(settings, postgres_tools(settings), refused, HostsHousekeeping))


def create_core_app(settings: Settings) -> App:
    """The same with the core's tools, for the development server and the other commands.

    Raises SettingsError, and SchemaMismatch for a database that is not migrated.
    """
    logs.configure(settings.log_level, settings.development)
    check_schema(settings.postgres_url or "")
    app = App(settings, _on(_database(settings, time.time), core_tools(settings)))
    atexit.register(app.close)
    return app


def postgres_tools(settings: Settings, clock: Callable[[], float] = time.time) -> Tools:
    """The tools of one worker: production's, as far as they know no SQLite."""
    database = _database(settings, clock)
    tools = replace(
        core_tools(settings, clock), limiter=shared_limiter(), log_request=log_queue.standard_error().log_request,
        passwords=BriefPasswords(database, settings.bcrypt_rounds, os.cpu_count() or 1, shared_password_locks()),
    )  # fmt: skip
    return _on(database, tools)


def _on(database: PostgresDatabase, tools: Tools) -> Tools:
    """These tools on PostgreSQL. Nothing is cached: asking what has changed costs more than it would save."""
    cache, limiter = NoCache(database), HostsRateLimiter(tools.limiter, database)
    return replace(
        tools, database=database, cache=cache, identities=cache, limiter=limiter,
        check_schema=partial(check_schema_of, database), in_time=InTime, clock_skew=CLOCK_SKEW_SECONDS,
    )  # fmt: skip


def _database(settings: Settings, clock: Callable[[], float]) -> PostgresDatabase:
    return PostgresDatabase(settings.postgres_url or "", settings.busy_timeout_seconds, clock)
