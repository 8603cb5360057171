"""Puts production's tools into the application.

Services, URL table and middleware are those of `app.py`. Each tool has the interface of the core's tool, and keeps over
several workers what that one keeps in one process.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from app import App, Tools
from backend.infrastructure.migrations import check_database, check_schema
from backend.operations.wiring import with_operations
from backend.production import log_queue
from backend.production.cache import CoherentCache
from backend.production.database import GroupCommitDatabase
from backend.production.error_responses import refused
from backend.production.kept_json import kept_json
from backend.production.passwords import SharedPasswords, shared_password_locks
from backend.production.rate_limiter import shared_limiter
from backend.settings import Settings


def create_app(settings: Settings | None = None) -> App:
    """The application of one worker. Raises SettingsError, and SchemaMismatch for a database that is not migrated."""
    settings = settings or Settings.from_environment()
    log_queue.configure(settings.log_level)
    check_database(settings.database_path)
    return App(settings, with_operations(settings, production_tools(settings), refused))


def production_tools(settings: Settings, clock: Callable[[], float] = time.time) -> Tools:
    """The tools of one worker, which share their counts and locks, or stay coherent. Call it after the fork."""
    half = max(1, settings.threads // 2)  # of a worker's threads may wait to write; the others serve reads
    database = GroupCommitDatabase(settings.database_path, settings.busy_timeout_seconds, clock, half)
    cache = CoherentCache(database, settings.cache_size, settings.cache_ttl_seconds)
    passwords = SharedPasswords(settings.bcrypt_rounds, os.cpu_count() or 1, shared_password_locks())
    schema = partial(check_schema, settings.database_path)
    log_request = log_queue.standard_error().log_request
    return Tools(clock, database, cache, cache, shared_limiter(), passwords, schema, log_request, kept_json)
