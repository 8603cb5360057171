"""Both wirings of the application, for tests that both must pass."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from app import App, Tools, core_tools
from backend.infrastructure.database import Database
from backend.infrastructure.logs import log_request
from backend.infrastructure.passwords import Passwords
from backend.infrastructure.rate_limiter import RateLimiter
from backend.settings import Settings


def _production_tools(*arguments: Any) -> Tools:
    from backend.production.wiring import production_tools  # the core's tests run without it

    return production_tools(*arguments)


def database_class_of(wiring: str) -> type[Database]:
    """The database that the wiring uses."""
    if wiring == "core":
        return Database
    from backend.production.database import GroupCommitDatabase

    return GroupCommitDatabase


def _postgres_tools(settings: Settings, *clock: Any) -> Tools:
    """A test's thread does not close its connection where it has checked a password: there are few threads."""
    from backend.postgres.wiring import postgres_tools
    from backend.production.passwords import SharedPasswords, shared_password_locks

    passwords = SharedPasswords(settings.bcrypt_rounds, 2, shared_password_locks())
    return replace(postgres_tools(settings, *clock), passwords=passwords)


WIRINGS = {"core": core_tools} | ({"production": _production_tools} if find_spec("backend.production") else {})
POSTGRES = "postgres"
TOOLS = WIRINGS | {POSTGRES: _postgres_tools}


def make_app(settings: Settings, *clock: Any, wiring: str = "core", **tools: Any) -> App:
    """An application with its own limiter, request lines by `logging`, and patient checks. `tools` replaces others."""
    own = {"limiter": limiter_class(wiring)(capacity=1024), "log_request": log_request, "in_time": Tools.in_time}
    return App(settings, replace(TOOLS[wiring](settings, *clock), **own | tools))


def limiter_class(wiring: str) -> type[RateLimiter]:
    if wiring == "core":
        return RateLimiter
    from backend.production.rate_limiter import SharedRateLimiter

    return SharedRateLimiter


def passwords_class(wiring: str) -> Callable[..., Passwords]:
    """The class of the wiring's passwords; in production, each instance has its own queue."""
    if wiring == "core":
        return Passwords
    from backend.production.byte_locks import ByteLocks
    from backend.production.passwords import SharedPasswords

    return lambda rounds, slots=1, **bounds: SharedPasswords(rounds, slots, ByteLocks(), **bounds)
