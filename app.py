"""START HERE. The whole application on one page: tools → services → URL table → middleware order.

`python app.py` serves on 127.0.0.1:8000; `python app.py --help` lists the commands. `create_app()` builds the
application with the core's tools, which are textbook versions. Production's `create_app()`, in
`backend/production/wiring.py`, builds it with tools for several workers (`gunicorn -c python:backend.gunicorn_conf`).
"""

import atexit
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from backend.delivery.mailer import Mailer
from backend.delivery.relay import Relay
from backend.delivery.webhooks import webhooks
from backend.infrastructure import logs
from backend.infrastructure.cache import Cache, LruCache, NoCache
from backend.infrastructure.database import Database
from backend.infrastructure.disk_space import check_disk_space
from backend.infrastructure.json_encoder import to_json
from backend.infrastructure.keyring import Keyring, signing_secrets
from backend.infrastructure.migrations import check_database, check_schema
from backend.infrastructure.passwords import Passwords
from backend.infrastructure.rate_limiter import RateLimiter
from backend.infrastructure.recent import Recent
from backend.infrastructure.shutdown import check_not_shutting_down
from backend.infrastructure.tokens import Tokens
from backend.openapi.document import openapi_document
from backend.openapi.page import SWAGGER_UI, DocsRoutes
from backend.routes.accounts import AccountRoutes, TransactionRoutes
from backend.routes.audit import AuditRoutes
from backend.routes.orders import OrderRoutes
from backend.routes.passwords import PasswordRoutes
from backend.routes.products import ProductRoutes
from backend.routes.service import ServiceRoutes, problems_of
from backend.routes.sessions import SessionRoutes
from backend.routes.users import UserRoutes
from backend.services.audit import Audit
from backend.services.credentials import UserCredentials
from backend.services.events import EventBus
from backend.services.ledger import Ledger
from backend.services.logins import Logins
from backend.services.orders import Orders
from backend.services.products import Products
from backend.services.rotation import Rotation
from backend.services.users import Users
from backend.settings import Settings
from backend.web.cross_origin import cross_origin
from backend.web.handler import endpoint
from backend.web.middleware import (
    Middleware,
    access_log,
    authentication,
    chain,
    client_addresses,
    dispatch,
    error_responses,
    framing,
    request_ids,
    routing,
)
from backend.web.pagination import Cursors
from backend.web.rate_limits import RateLimits
from backend.web.request import Request
from backend.web.router import ADMIN, ANYONE, SELF_OR_ADMIN, USER, Route, Router

StartResponse = Callable[..., Any]
FindProblems = Callable[[], dict[str, str]]  # what is wrong, by the failing check's name
READINESS_SECONDS = 1.0  # for which the result of the readiness checks is kept


class Background(Protocol):
    """Threads that work beside the requests."""

    def start(self) -> None:
        """Start them. Idempotent."""

    def stop(self) -> None:
        """End them within a second or two. Idempotent."""


@dataclass(frozen=True)
class Tools:
    """The mechanisms of an application. Wirings choose for each the textbook version or production's."""

    clock: Callable[[], float]  # seconds since 1970
    database: Database
    cache: Cache  # of users and products; services invalidate it
    identities: Cache  # of sessions with their users; services do not invalidate it, so it must not need that
    limiter: RateLimiter
    passwords: Passwords
    check_schema: Callable[[], None]  # raises SchemaMismatch
    log_request: Callable[[Mapping[str, object]], None] = logs.log_request
    to_json: Callable[[dict[str, Any]], str] = to_json  # of envelopes
    clock_skew: float = 0.0  # seconds by which the clocks of several hosts may differ
    in_time: Callable[[FindProblems], FindProblems] = lambda find: find  # bounds how long the checks of /readyz take
    # What optional rooms add to the application.
    routes: Sequence[Route] = ()
    middleware: Sequence[Middleware] = ()  # outermost
    background: Sequence[Background] = ()


class App:
    """The WSGI application. The command line and tests use its public attributes."""

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self.database, self.cache, passwords, clock = tools.database, tools.cache, tools.passwords, tools.clock
        keyring = Keyring(signing_secrets(settings))
        lifetimes = settings.access_token_seconds, settings.refresh_token_seconds
        tokens = Tokens(keyring, *lifetimes, clock, tools.clock_skew)
        cursors = Cursors(keyring)

        # Services.
        events = EventBus()
        self.users = Users(self.database, self.cache, passwords, events)
        self.credentials = UserCredentials(self.database, passwords, keyring, events)
        rotation = Rotation(tokens, keyring, settings.refresh_token_seconds, settings.refresh_grace_seconds)
        self.logins = Logins(
            self.database, tools.identities, passwords, tokens, rotation, events, settings.access_token_seconds
        )
        products = Products(self.database, self.cache, events)
        ledger = Ledger(self.database, events)
        orders = Orders(self.database, self.cache, ledger, events)
        audit_log = Audit(self.database)
        mailer = Mailer(settings, self.database, self.credentials)
        subscribers = [audit_log.subscriber(), self.credentials.subscriber(), mailer.subscriber(), *webhooks(settings)]
        self.relay = Relay(self.database, subscribers)
        events.subscribe(*subscribers)
        events.listen(self.relay.wake)
        self._background = [self.relay, *tools.background]

        # Routes: the URLs, and which callers each admits.
        limits = RateLimits(tools.limiter, settings.rate_limit_default, settings.rate_limit_auth, self.logins.is_known)
        users = UserRoutes(self.users, limits)
        sessions = SessionRoutes(self.logins, limits)
        password = PasswordRoutes(self.credentials, limits)
        catalogue = ProductRoutes(products, cursors)
        accounts = AccountRoutes(ledger, cursors)
        transactions = TransactionRoutes(ledger)
        order = OrderRoutes(orders, cursors)
        audit = AuditRoutes(audit_log, cursors)
        checks = {
            "schema": tools.check_schema,
            "diskSpace": lambda: check_disk_space(settings.database_path),
            "outboxLag": self.relay.check_lag,
            # Last, because after a fault it closes connections. 0.4, because `/readyz` must answer within a second.
            "database": lambda: self.database.check_writable(at_most=0.4),
        }
        # `/readyz` has no rate limit, so clients must not be able to multiply the writes that it makes.
        recent_problems = Recent(tools.in_time(lambda: problems_of(checks)), READINESS_SECONDS, clock)
        service = ServiceRoutes(
            lambda: problems_of({"shutdown": check_not_shutting_down}) | recent_problems(),
            lambda: to_json(openapi_document(self.routes)),
        )
        docs = DocsRoutes()
        self.routes = [
            Route("POST", "/api/v1/users", users.create_user, ANYONE, auth_limited=True),
            Route("GET", "/api/v1/users", users.list_users, ADMIN),
            Route("GET", "/api/v1/users/me", users.get_current_user, USER),
            Route("PATCH", "/api/v1/users/me", users.update_current_user, USER),
            Route("GET", "/api/v1/users/{id}", users.get_user, SELF_OR_ADMIN, users.find),
            Route("PATCH", "/api/v1/users/{id}", users.update_user, SELF_OR_ADMIN, users.find),
            Route("DELETE", "/api/v1/users/{id}", users.delete_user, ADMIN, users.find),
            Route("POST", "/api/v1/auth/login", sessions.log_in, ANYONE, auth_limited=True),
            Route("POST", "/api/v1/auth/refresh", sessions.refresh_tokens, ANYONE),
            Route("POST", "/api/v1/auth/logout", sessions.log_out, ANYONE),
            Route("GET", "/api/v1/auth/sessions", sessions.list_sessions, USER),
            Route("DELETE", "/api/v1/auth/sessions", sessions.end_all_sessions, USER),
            Route("DELETE", "/api/v1/auth/sessions/{id}", sessions.end_session, USER, sessions.find),
            Route("POST", "/api/v1/auth/password", password.change_password, USER, auth_limited=True),
            Route("POST", "/api/v1/auth/password-reset", password.request_password_reset, ANYONE, auth_limited=True),
            Route(
                "POST",
                "/api/v1/auth/password-reset/confirm",
                password.confirm_password_reset,
                ANYONE,
                auth_limited=True,
            ),
            Route("GET", "/api/v1/products", catalogue.list_products, ANYONE),
            Route("POST", "/api/v1/products", catalogue.create_product, ADMIN),
            Route("GET", "/api/v1/products/{id}", catalogue.get_product, ANYONE, catalogue.find),
            Route("PATCH", "/api/v1/products/{id}", catalogue.update_product, ADMIN, catalogue.find),
            Route("POST", "/api/v1/accounts", accounts.create_account, USER),
            Route("GET", "/api/v1/accounts", accounts.list_accounts, USER),
            Route("GET", "/api/v1/accounts/{id}", accounts.get_account, USER, accounts.find),
            Route("POST", "/api/v1/accounts/{id}/deposits", accounts.create_deposit, ADMIN, accounts.find),
            Route("POST", "/api/v1/accounts/{id}/withdrawals", accounts.create_withdrawal, ADMIN, accounts.find),
            Route("GET", "/api/v1/accounts/{id}/transactions", accounts.list_account_transactions, USER, accounts.find),
            Route("POST", "/api/v1/transfers", transactions.create_transfer, USER),
            Route("GET", "/api/v1/transactions/{id}", transactions.get_transaction, USER, transactions.find),
            Route("POST", "/api/v1/orders", order.create_order, USER),
            Route("GET", "/api/v1/orders", order.list_orders, USER),
            Route("GET", "/api/v1/orders/{id}", order.get_order, USER, order.find),
            Route("POST", "/api/v1/orders/{id}/cancel", order.cancel_order, USER, order.find),
            Route("POST", "/api/v1/orders/{id}/fulfil", order.fulfil_order, ADMIN, order.find),
            Route("GET", "/api/v1/audit", audit.list_audit_entries, ADMIN),
            Route("GET", "/healthz", service.get_health, ANYONE),
            Route("GET", "/readyz", service.get_readiness, ANYONE),
            Route("GET", "/openapi.json", service.get_open_api, ANYONE),
            Route("GET", "/docs", docs.get_docs_page, ANYONE),
            Route("GET", "/docs/page.js", docs.get_docs_script, ANYONE),
            Route("GET", "/docs/page.css", docs.get_docs_style, ANYONE),
            Route("GET", f"/docs/{SWAGGER_UI}.js", docs.get_viewer_script, ANYONE),
            Route("GET", f"/docs/{SWAGGER_UI}.css", docs.get_viewer_style, ANYONE),
            *tools.routes,
        ]

        # The middleware, outermost first.
        self.router = Router(endpoint(route, tools.to_json) for route in self.routes)
        self.middleware = [
            *tools.middleware,
            request_ids,
            client_addresses(settings.trusted_proxies),
            access_log(tools.log_request),
            cross_origin(settings.cors_origins),
            error_responses,
            framing,
            routing(self.router),
            authentication(self.logins.identify),
            limits.middleware,
        ]
        self._handle = chain(self.middleware, dispatch)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not self.relay.started:
            self.start()
        return self._handle(Request(environ))(environ, start_response)

    def start(self) -> None:
        """Start the threads that work beside the requests; at the latest the first request does. Idempotent."""
        for each in self._background:
            each.start()

    def close(self) -> None:
        """Stop the threads that work beside the requests, and close this thread's connections."""
        for each in self._background:
            each.stop()
        self.database.close()


def create_app(settings: Settings | None = None) -> App:
    """The application with the core's tools. Raises SettingsError, and SchemaMismatch for a database not migrated."""
    settings = settings or Settings.from_environment()
    logs.configure(settings.log_level, settings.development)
    check_database(settings.database_path)
    app = App(settings, core_tools(settings))
    atexit.register(app.close)  # whichever server runs it
    return app


def core_tools(settings: Settings, clock: Callable[[], float] = time.time) -> Tools:
    """The textbook tools: right in one process, and across processes where the database alone can guarantee it."""
    database = Database(settings.database_path, settings.busy_timeout_seconds, clock)
    cache, identities = LruCache(database, settings.cache_size, settings.cache_ttl_seconds), NoCache(database)
    passwords = Passwords(settings.bcrypt_rounds, os.cpu_count() or 1)
    schema = partial(check_schema, settings.database_path)
    return Tools(clock, database, cache, identities, RateLimiter(), passwords, schema)


def main() -> None:
    """The command line: `python app.py` here, `reference-backend` where it is installed."""
    from backend.cli.main import main as run  # here, because a WSGI server does not need it

    run(create_app, lambda settings: App(settings, core_tools(settings)))


if __name__ == "__main__":
    main()
