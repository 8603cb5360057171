"""Puts PostgreSQL into the application, with production's tools that do not depend on the database."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from app import App, Tools
from backend.infrastructure.cache import NoCache
from backend.postgres.database import PostgresDatabase
from backend.postgres.in_time import InTime
from backend.postgres.migrations import check_schema, check_schema_of
from backend.postgres.rate_limiter import HostsRateLimiter
from backend.production import log_queue
from backend.production.passwords import SharedPasswords, shared_password_locks
from backend.production.rate_limiter import shared_limiter
from backend.settings import Settings, SettingsError


def create_app(settings: Settings | None = None) -> App:
    """The application of one worker. Raises SchemaMismatch for a database that is not migrated.

    The server may be away when a worker starts: gunicorn's master, which has checked it, ends if a worker cannot start.
    """
    settings = settings or Settings.from_environment()
    log_queue.configure(settings.log_level)
    with suppress(SettingsError):
        check_schema(settings.postgres_url or "")
    return App(settings, postgres_tools(settings))


def postgres_tools(settings: Settings, clock: Callable[[], float] = time.time) -> Tools:
    """The tools of one worker. Nothing is cached: asking for news costs more than the reads that it would save."""
    url = settings.postgres_url or ""
    database = PostgresDatabase(url, settings.busy_timeout_seconds, clock)
    cache = NoCache(database)
    passwords = SharedPasswords(settings.bcrypt_rounds, os.cpu_count() or 1, shared_password_locks())
    limiter = HostsRateLimiter(shared_limiter(), database)
    schema, log_request = partial(check_schema_of, database), log_queue.standard_error().log_request
    return Tools(clock, database, cache, cache, limiter, passwords, schema, log_request, in_time=InTime)
