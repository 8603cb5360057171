"""The contenders: all have the same data and two workers (PocketBase: two threads of Go)."""

import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from uuid import uuid4

import bcrypt
import jwt
from sqlalchemy import create_engine, text

from backend.infrastructure.ids import new_id
from backend.infrastructure.migrations import migrate
from backend.infrastructure.passwords import Passwords
from tests.bench.furniture import CALLERS, Row, Tables, furniture
from tests.bench.jobs import (
    LOGIN,
    ONE_USER,
    ORDER,
    ORDER_LIST,
    PRODUCT_PAGE,
    READS,
    TRANSFER,
    Job,
    data_of,
    get,
    jobs,
    orders,
    post,
    same_length,
)
from tests.bench.measure import OURS
from tests.bench.peers import shop
from tests.bench.servers import GTHREAD, GUNICORN, PATIENCE, Server, TwoHosts, running

BARE, FLASK, FASTAPI, POCKETBASE = "bare WSGI", "Flask + SQLAlchemy", "FastAPI + SQLAlchemy", "PocketBase"
CORE = "our core on gthread"
API = {ONE_USER: "/api/v1/users/{}", PRODUCT_PAGE: "/api/v1/products?limit=20", ORDER_LIST: "/api/v1/orders?limit=20",
       TRANSFER: "/api/v1/transfers", ORDER: "/api/v1/orders"}  # fmt: skip
POCKETBASE_API = {
    ONE_USER: "/api/collections/users/records/{}",
    PRODUCT_PAGE: "/api/collections/products/records?perPage=20&skipTotal=1&sort=-created",
    ORDER_LIST: "/api/orders",
    TRANSFER: "/api/transfers",
}
PASSWORD, SECRET = "a quiet harbour", "a secret of the bench of 32 bytes and more"
PRODUCTION = (*GUNICORN, "-c", "python:backend.gunicorn_conf", "--timeout", PATIENCE)
POCKETBASE_FILES = Path(__file__).parent / "peers" / "pocketbase"


@contextmanager
def contenders(
    folder: Path, *names: str, more: Mapping[str, Callable[[Path], AbstractContextManager[Server]]] | None = None
) -> Iterator[dict[str, Server]]:
    """Run the servers of these names, filled with data, until the block ends. All but the one under load are stopped.

    The bare one is started after ours, because its answers have the same lengths. `more` starts servers beside STARTS.
    """
    starts = STARTS | (more or {})
    with ExitStack() as servers:
        found: dict[str, Server] = {}
        for name in names:
            (own := folder / name).mkdir()
            starting = bare(own, found[OURS]) if name == BARE else starts[name](own)
            found[name] = servers.enter_context(starting)
        for server in found.values():
            server.pause()
        yield found


@contextmanager
def ours(
    folder: Path, bcrypt_rounds: int = 4, command: Sequence[object] = PRODUCTION, postgres: str = ""
) -> Iterator[Server]:
    """As in production, with limiter and access log; the limits are high enough for one caller to be the load.

    On SQLite, or in the empty database at the URL `postgres`.
    """
    tables = our_postgres(postgres) if postgres else our_database(folder / "app.db")
    with _serving(tables, postgres or sqlite_url(folder / "app.db"), folder, bcrypt_rounds, command) as server:
        yield server


@contextmanager
def two_hosts(folder: Path, postgres: str) -> Iterator[Server]:
    """The same in production twice, as on two hosts, on the empty database at the URL `postgres`."""
    tables = our_postgres(postgres)
    with ExitStack() as stack:
        hosts = []
        for name in ("a", "b"):
            (own := folder / name).mkdir()
            hosts.append(stack.enter_context(_serving(tables, postgres, own)))
        yield TwoHosts(*hosts)


@contextmanager
def _serving(
    tables: Tables, url: str, folder: Path, bcrypt_rounds: int = 4, command: Sequence[object] = PRODUCTION
) -> Iterator[Server]:
    """On the database at `url`, which holds `tables`."""
    environment = {
        "BIND": "127.0.0.1:{port}", "DATABASE_URL": url, "JWT_SECRETS": SECRET, "WEB_CONCURRENCY": 2,
        "RATE_LIMIT_DEFAULT": "1000000/1", "RATE_LIMIT_AUTH": "1000000/1", "BCRYPT_ROUNDS": bcrypt_rounds,
    }  # fmt: skip
    with running(command, folder, get("/healthz"), environment) as server:
        bodies = [{"email": user["email"], "password": PASSWORD} for user in tables["users"][:CALLERS]]
        logins = [post("/api/v1/auth/login", body) for body in bodies]
        tokens = [data_of(server.ask(login))["data"]["accessToken"] for login in logins]
        server.jobs = jobs(tables, tokens, API) | {
            LOGIN: Job(logins, b'"accessToken"', 1),
            ORDER: orders(tables, tokens, API[ORDER]),
        }
        yield server


@contextmanager
def core(folder: Path) -> Iterator[Server]:
    """The core without the production layer, on the plainest of gunicorn's threaded workers."""
    with ours(folder, command=(*GTHREAD, "app:create_app()")) as server:
        yield server


def our_database(path: Path) -> Tables:
    """Create and fill our database at `path`; its rows."""
    migrate(path)
    return _our_rows(sqlite_url(path))


def our_postgres(url: str) -> Tables:
    """Migrate and fill our database at `url`; its rows."""
    from backend.postgres.migrations import migrate

    migrate(url)
    return _our_rows(url)


def _our_rows(url: str) -> Tables:
    password = Passwords(rounds=4).hash(PASSWORD)
    tables, now = furniture(new_id), int(time.time() * 1000)
    both = {"created_at": now, "updated_at": now}
    fill(url, tables, {
        "users": lambda _, user: {
            "email_key": user["email"], "name_key": user["name"].casefold(), "roles": "user", "active": 1,
            "version": 1, "token_version": 1, "password_hash": password, **both,
        },
        "accounts": lambda *_: {"kind": "user", "created_at": now},
        "products": lambda *_: both, "orders": lambda *_: both, "order_items": lambda *_: {},
    })  # fmt: skip
    return tables


@contextmanager
def bare(folder: Path, like: Server) -> Iterator[Server]:
    """A WSGI function that answers with as many bytes as `like`, to requests with the same headers."""
    with running((*GTHREAD, "tests.bench.peers.bare_function:application"), folder, get("/1"), {}) as server:
        server.jobs = {name: same_length(job := like.jobs[name], like.ask(job.requests[0])) for name in READS}
        yield server


@contextmanager
def flask(folder: Path, postgres: str = "") -> Iterator[Server]:
    with peer(folder, (*GTHREAD, "tests.bench.peers.flask_sqlalchemy:app"), postgres) as server:
        yield server


@contextmanager
def fastapi(folder: Path, postgres: str = "") -> Iterator[Server]:
    command = (
        sys.executable, "-m", "uvicorn", "--port", "{port}", "--workers", 2, "--no-access-log",
        "tests.bench.peers.fastapi_sqlalchemy:app",
    )  # fmt: skip
    with peer(folder, command, postgres) as server:
        yield server


@contextmanager
def peer(folder: Path, command: Sequence[object], postgres: str = "") -> Iterator[Server]:
    """A contender that uses `peers/shop.py`, on SQLite or in the empty database at the URL `postgres`."""
    variables = {"PEER_DATABASE": with_driver(postgres or sqlite_url(folder / "shop.db")), "PEER_SECRET": SECRET}
    engine = shop.engine_of(variables["PEER_DATABASE"], threads=1)
    shop.Base.metadata.create_all(engine)
    engine.dispose()
    tables = furniture(lambda: str(uuid4()))
    both = {"created_at": (now := datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")), "updated_at": now}
    fill(variables["PEER_DATABASE"], tables, {
        "users": lambda *_: {"roles": "user", "active": True, "version": 1, "token_version": 1, **both},
        "accounts": lambda *_: {"created_at": now},
        "products": lambda *_: both, "orders": lambda *_: both, "order_items": lambda *_: {},
    })  # fmt: skip
    claims = {"iss": "shop", "aud": "shop", "exp": int(time.time()) + 3600, "ver": 1}
    tokens = [jwt.encode({**claims, "sub": user["id"]}, SECRET) for user in tables["users"][:CALLERS]]
    with running(command, folder, get("/api/v1/products?limit=1"), variables) as server:
        server.jobs = jobs(tables, tokens, API)
        yield server


@contextmanager
def pocketbase(folder: Path) -> Iterator[Server]:
    """Its own API where that has the job; orders with items, and transfers, by routes in its hooks."""
    binary = Path(sysconfig.get_path("scripts")) / "pocketbase"
    options: list[str | Path] = [
        "--dir", folder / "data", "--hooksDir", POCKETBASE_FILES / "pb_hooks", "--hooksWatch=false",
        "--migrationsDir", POCKETBASE_FILES / "pb_migrations", "--automigrate=false",
    ]  # fmt: skip
    subprocess.run([binary, "migrate", "up", *options], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    tables = furniture(lambda: token_hex(7) + "0")
    password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    both = {"created": now, "updated": now}
    fill(sqlite_url(folder / "data" / "data.db"), tables, {
        "users": lambda *_: {
            "password": password, "tokenKey": token_hex(25), "emailVisibility": 1, "verified": 1, **both,
        },
        "accounts": lambda *_: both, "products": lambda *_: both, "orders": lambda *_: both,
        "order_items": lambda *_: {"id": token_hex(7) + "0", **both},
    })  # fmt: skip
    command = [binary, "serve", "--http", "127.0.0.1:{port}", *options]
    with running(command, folder, get("/api/health"), {"GOMAXPROCS": 2}, workers=1) as server:
        bodies = [{"identity": user["email"], "password": PASSWORD} for user in tables["users"][:CALLERS]]
        login = "/api/collections/users/auth-with-password"
        tokens = [data_of(server.ask(post(login, body)))["token"] for body in bodies]
        server.jobs = jobs(tables, tokens, POCKETBASE_API)
        yield server


def fill(database: str, tables: Tables, more: Mapping[str, Callable[[int, Row], Row]]) -> None:
    """Insert the rows into the database at this URL; `more` gives further columns for a row and its number."""
    engine = create_engine(with_driver(database))
    with engine.begin() as connection:
        for table, rows in tables.items():
            columns, values = zip(*((name, f":{name}") for name in rows[0] | more[table](0, rows[0])), strict=True)
            insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)})"
            connection.execute(text(insert), [row | more[table](number, row) for number, row in enumerate(rows)])
    engine.dispose()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def with_driver(url: str) -> str:
    """The URL for SQLAlchemy, whose default driver for PostgreSQL is an older one."""
    return url.replace("postgresql://", "postgresql+psycopg://")


STARTS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    OURS: ours,
    CORE: core,
    FLASK: flask,
    FASTAPI: fastapi,
    POCKETBASE: pocketbase,
}
