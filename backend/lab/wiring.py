"""Puts the lab into the application: its seams in place of the core's tools, a trace of each request, and the page."""

from dataclasses import replace

from app import App, Tools, core_tools
from backend.infrastructure import logs
from backend.infrastructure.cache import LruCache, NoCache
from backend.infrastructure.migrations import check_database
from backend.lab.guard import loopback_only
from backend.lab.logins import PasswordlessLogins
from backend.lab.pages import LabRoutes
from backend.lab.seams import TracedCache, TracedDatabase, TracedLimiter
from backend.lab.seed import seed
from backend.lab.targets import Targets
from backend.lab.tracing import Tracing
from backend.settings import Settings


def create_app(settings: Settings) -> App:
    """The lab: the core's application, traced, with `/lab`. Raises SchemaMismatch for a database not migrated."""
    logs.configure(settings.log_level, settings.development)
    check_database(settings.database_path)
    tracing, logins = Tracing(own="/lab"), PasswordlessLogins(settings)
    targets = Targets(logins)
    tools = traced_tools(settings, tracing)
    routes = LabRoutes(tracing, logins, targets, settings.database_path).table()
    middleware = [loopback_only, *tools.middleware]
    app = App(settings, replace(tools, routes=routes, middleware=middleware, background=[targets]))
    seed(app, logins)
    return app


def traced_tools(settings: Settings, tracing: Tracing) -> Tools:
    """The core's tools with the seams of the lab, and the middleware that traces."""
    database = TracedDatabase(settings.database_path, settings.busy_timeout_seconds)
    return replace(
        core_tools(settings),
        database=database,
        cache=TracedCache(LruCache(database, settings.cache_size, settings.cache_ttl_seconds)),
        identities=TracedCache(NoCache(database)),
        limiter=TracedLimiter(),
        middleware=[tracing.middleware],
    )


def traced_app(settings: Settings, tracing: Tracing) -> App:
    """The core's application, traced."""
    return App(settings, traced_tools(settings, tracing))
