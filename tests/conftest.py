"""Fixtures: an application on a real SQLite file of its own, users, and a clock that tests can advance."""

import gc
import logging
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from werkzeug.test import Client, TestResponse

from app import App
from backend.infrastructure import database
from backend.infrastructure.logs import JsonFormatter
from backend.infrastructure.migrations import migrate
from backend.settings import Settings
from tests import postgres_server
from tests.outsider import Outsider, PostgresOutsider
from tests.wirings import POSTGRES, WIRINGS, make_app

if TYPE_CHECKING:
    from tests.every_route import World

PASSWORD = "correct horse battery staple"
SECRET = "tests-only-secret-of-at-least-32-bytes"
UNKNOWN_ID = "0198c0de-0000-7000-8000-000000000000"  # of no row; constant, because parameters are part of test names


def pytest_addoption(parser: pytest.Parser) -> None:
    meaning = "run only this wiring's tests and those without a wiring; `postgres` runs nothing else"
    parser.addoption("--wiring", choices=(*WIRINGS, POSTGRES), help=meaning)


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C interrupt the programs under test: a shell starts `make test &` with SIGINT ignored, as they would.

    Start PostgreSQL for its tests. The processes of pytest-xdist inherit its URL.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "sqlite: what the test is about exists on SQLite only")
    if config.getoption("wiring") != POSTGRES:
        return
    if not postgres_server.available():
        # A developer's machine may have none; the gate's must.
        pytest.exit(postgres_server.ABSENT, returncode=1 if "REQUIRE_POSTGRES" in os.environ else 0)
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        running = ExitStack()
        os.environ[postgres_server.URL] = running.enter_context(postgres_server.server())
        config.add_cleanup(running.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only = config.getoption("wiring")
    callspecs = {item: getattr(item, "callspec", None) for item in items}
    wirings = {item: of.params.get("wiring") if of else None for item, of in callspecs.items()}
    postgres = {item for item in items if wirings[item] == POSTGRES or item.path.parent.name == POSTGRES}
    if only == POSTGRES:
        left_out = {item for item in items if item not in postgres or item.get_closest_marker("sqlite")}
    else:
        left_out = postgres | {item for item in items if only and wirings[item] not in (None, only)}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Let no garbage collection look again at the eight thousand tests that have been collected."""
    gc.freeze()


# A busy machine is slow, and that is no fault of a test.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")


class Clock:
    """The wall clock, plus what a test has added to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds


@dataclass
class Person:
    """A user with a login: `headers` carry the access token."""

    id: str
    email: str
    access: str
    refresh: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access}"}


class Api:
    """A client of the application; paths are below `/api/v1` unless they start with `//`. Thread-safe."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._client = Client(app, use_cookies=False)

    def __call__(
        self, method: str, path: str, by: Person | None = None, *, headers: dict[str, str] | None = None, **rest: Any
    ) -> TestResponse:
        """One request: `by` a user, `json=` or `data=` as body, `key=` as Idempotency-Key, `address=` of the client."""
        sent = {**(by.headers if by else {}), **(headers or {})}
        if "key" in rest:
            sent["Idempotency-Key"] = rest.pop("key")
        if "address" in rest:
            rest["environ_overrides"] = {"REMOTE_ADDR": rest.pop("address")}
        whole = path[1:] if path.startswith("//") else f"/api/v1{path}"
        return self._client.open(whole, method=method, headers=sent, **rest)

    def get(self, path: str, by: Person | None = None, **rest: Any) -> TestResponse:
        return self("GET", path, by, **rest)

    def post(self, path: str, by: Person | None = None, json: Any = None, **rest: Any) -> TestResponse:
        return self("POST", path, by, json=json, **rest)

    def patch(self, path: str, by: Person | None = None, json: Any = None, **rest: Any) -> TestResponse:
        return self("PATCH", path, by, json=json, **rest)

    def delete(self, path: str, by: Person | None = None, **rest: Any) -> TestResponse:
        return self("DELETE", path, by, **rest)

    def log_in(self, email: str, password: str = PASSWORD) -> Person:
        answer = self.post("/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        pair = answer.json["data"]
        person = Person("", email, pair["accessToken"], pair["refreshToken"])
        person.id = self.get("/users/me", person).json["data"]["id"]
        return person

    def sign_up(self, name: str) -> Person:
        """A new user with a login."""
        email = f"{name.lower()}@example.com"
        answer = self.post("/users", json={"email": email, "password": PASSWORD, "name": name})
        assert answer.status_code == 201, answer.text
        return self.log_in(email)

    def admin(self, name: str = "Root") -> Person:
        """A new admin with a login."""
        person = self.sign_up(name)
        with self.app.database.transaction() as tx:
            self.app.users.grant_admin(tx, person.id)
        return person

    def account(self, of: Person, currency: str = "EUR", balance: int = 0, admin: Person | None = None) -> str:
        """The id of a new account; its `balance` is deposited by `admin`."""
        account_id = self.post("/accounts", of, {"currency": currency}).json["data"]["id"]
        if balance:
            assert admin is not None
            answer = self.post(f"/accounts/{account_id}/deposits", admin, {"amount": balance})
            assert answer.status_code == 201, answer.text
        return account_id

    def balance(self, account_id: str, by: Person) -> int:
        return self.get(f"/accounts/{account_id}", by).json["data"]["balance"]

    def product(
        self, admin: Person, sku: str = "SKU-1", price: int = 250, stock: int = 10, currency: str = "EUR"
    ) -> str:
        """The id of a new product."""
        body = {"sku": sku, "name": f"The {sku}", "unitPrice": price, "currency": currency, "stock": stock}
        answer = self.post("/products", admin, body)
        assert answer.status_code == 201, answer.text
        return answer.json["data"]["id"]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "app.db"
    migrate(path)
    return path


@pytest.fixture(scope="session")
def worlds(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> "Callable[[], World]":
    """Gives a filled database; every ten minutes a new one, for its users' access tokens live for fifteen."""
    from tests.every_route import build_world  # which imports this file

    made: list[tuple[float, World]] = []

    def newest() -> "World":
        if not made or time.monotonic() - made[-1][0] > 600:
            copy = Path(shutil.copy(migrated, tmp_path_factory.mktemp("world")))
            made.append((time.monotonic(), build_world(copy)))
        return made[-1][1]

    return newest


@pytest.fixture
def world(worlds: "Callable[[], World]") -> "World":
    """A filled database, to be copied."""
    return worlds()


@pytest.fixture
def database_path(request: pytest.FixtureRequest, migrated: Path, tmp_path: Path) -> Path:
    """The test's own database: a copy of the world if the test uses `world`, else an empty one."""
    original = request.getfixturevalue("world").path if "world" in request.fixturenames else migrated
    return Path(shutil.copy(original, tmp_path / "app.db"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def standing_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The test's clock, which moves only when the test moves it."""
    now = clock()
    monkeypatch.setattr(Clock, "__call__", lambda clock: now + clock.ahead)
    return clock


@pytest.fixture
def settings(request: pytest.FixtureRequest, database_path: Path) -> Settings:
    """Fast passwords, no limits, patient writers; a test that wants others says `replace(settings, …)`."""
    on_postgres = "wiring" in request.fixturenames and request.getfixturevalue("wiring") == POSTGRES
    url = postgres_server.emptied_database() if on_postgres else None
    if url and "world" in request.fixturenames:
        postgres_server.take_over(database_path)
    return Settings(
        database_path=database_path, postgres_url=url, jwt_secrets=(SECRET,), bcrypt_rounds=4, rate_limit_default=None,
        rate_limit_auth=None, development=True, busy_timeout_seconds=600,
    )  # fmt: skip


@pytest.fixture
def outsider(settings: Settings) -> Iterator[Outsider]:
    """Another program on the test's database."""
    url = settings.postgres_url
    outsider = PostgresOutsider(url) if url else Outsider(settings.database_path)
    yield outsider
    outsider.close()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """The access log of the test's applications."""
    access, path = logging.getLogger("backend.access"), tmp_path / "access.log"
    handler = logging.FileHandler(path, encoding="ascii")
    handler.setFormatter(JsonFormatter())
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    yield path
    access.setLevel(logging.NOTSET)
    access.removeHandler(handler)
    handler.close()


@pytest.fixture
def no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """`synchronous = OFF` in this process: a commit outlasts a killed process, but not a power cut.

    The tests of the database itself, and programs that a test starts, use `FULL`.
    """
    pragmas = [pragma.replace("synchronous = FULL", "synchronous = OFF") for pragma in database.PRAGMAS]
    monkeypatch.setattr(database, "PRAGMAS", pragmas)


@pytest.fixture(params=[*WIRINGS, *([POSTGRES] if postgres_server.available() else [])])
def wiring(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_api(settings: Settings, clock: Clock, wiring: str, no_wait_for_the_disk: None) -> Iterator[Any]:
    """Applications on the test's database: `make_api(cache_size=0, …)` changes settings."""
    made: list[App] = []

    def make(**changes: Any) -> Api:
        made.append(make_app(replace(settings, **changes), clock, wiring=wiring))
        return Api(made[-1])

    yield make
    for app in made:
        app.close()


@pytest.fixture
def certificate_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ssl.SSLContext]:
    """Servers' TLS for a name such as `DNS:mail.example`, with a certificate that this process trusts."""

    def make(name: str) -> ssl.SSLContext:
        openssl = shutil.which("openssl")
        if not openssl:
            pytest.skip("there is no openssl to make a certificate with")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
        names = ["-subj", "/CN=x", "-addext", f"subjectAltName={name}"]
        subprocess.run([openssl, *kind, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    return make


@pytest.fixture
def api(make_api: Any) -> Api:
    return make_api()


@pytest.fixture
def app(api: Api) -> App:
    return api.app


@pytest.fixture
def admin(api: Api) -> Person:
    return api.admin()


@pytest.fixture
def ada(api: Api) -> Person:
    return api.sign_up("Ada")


@pytest.fixture
def grace(api: Api) -> Person:
    return api.sign_up("Grace")
