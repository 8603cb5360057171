"""A PostgreSQL server for the tests, if this machine has one: TEST_POSTGRES_URL, its `pg_ctl`, or the package pgserver.

The process that collects the tests starts it, and the processes of pytest-xdist inherit TEST_POSTGRES_URL. Each has a
database of its own, which is migrated once and emptied before each test that uses it.
"""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import psycopg

URL = "TEST_POSTGRES_URL"
ABSENT = "no test ran: there is no PostgreSQL. Install it (apt-get install postgresql), or set TEST_POSTGRES_URL"
DURABLE = "-c max_connections=500 -c listen_addresses="
FAST = f"{DURABLE} -c fsync=off -c full_page_writes=off"  # a crash may cost the data
HERE = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
# Run beside the server: its standard input ends with the process that holds the other end.
AT_THE_END = """read -r _; "$0" -D "$1/data" stop --mode=immediate >/dev/null 2>&1; rm -rf "$1" """
BINARIES = next((folder for folder in HERE if (folder / "initdb").exists()), None)


def available() -> bool:
    return bool(find_spec("psycopg")) and bool(os.environ.get(URL) or BINARIES or find_spec("pgserver"))


@contextmanager
def server(options: str = FAST) -> Iterator[str]:
    """The URL of the environment's server, or of one that runs until the block ends. `pg_ctl` gets `options`."""
    if given := os.environ.get(URL):
        yield given
    elif BINARIES:
        own = Server(BINARIES, options)
        with own.running():
            yield own.url
    else:
        import pgserver

        with tempfile.TemporaryDirectory() as folder:
            running = pgserver.get_server(folder)
            yield running.get_uri()
            running.cleanup()


class Server:
    """A server with its data in a folder of its own. It refuses to run as root, so root starts it as another user."""

    def __init__(self, binaries: Path, options: str = FAST) -> None:
        self._binaries, self._options, self._user = binaries, options, {}
        self._folder = tempfile.mkdtemp(prefix="postgres-")
        self.url = f"postgresql://test@/postgres?host={self._folder}"
        if os.geteuid() == 0:
            self._user = {"user": "postgres" if _exists("postgres") else "nobody"}
            shutil.chown(self._folder, self._user["user"])

    @contextmanager
    def running(self) -> Iterator[None]:
        """From here to the end of the block, or of this process, however it ends: then the folder is deleted, too."""
        command = ["sh", "-c", AT_THE_END, self._binaries / "pg_ctl", self._folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **self._user):
            self._run("initdb", "--username=test", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
            self.start()
            yield

    def start(self) -> None:
        self._run(
            "pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={self._options} -k {self._folder}"
        )

    def crash(self) -> None:
        """Kill all its processes. The next start recovers what was committed."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def _run(self, program: str, *options: str) -> None:
        command = [self._binaries / program, "-D", f"{self._folder}/data", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._user)


def _exists(user: str) -> bool:
    return any(entry.pw_name == user for entry in pwd.getpwall())


@cache
def database_url() -> str:
    """The URL of this process's database, created and migrated on first use."""
    import psycopg

    from backend.postgres.migrations import migrate

    name = f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    with psycopg.connect(os.environ[URL], autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    url = url_of(name)
    migrate(url)
    return url


def url_of(database: str, server: str = "") -> str:
    """The URL of another database of the tests' server, or of the one that `server` is a URL of."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(server or os.environ[URL])
    user, host, port = parts.get("user", ""), quote(parts.get("host", ""), safe=""), parts.get("port", 5432)
    return f"postgresql://{user}@/{database}?host={host}&port={port}"


def emptied_database() -> str:
    """The URL of this process's database, without a row but the records of its migrations."""
    connection, deletes = _eraser()
    connection.execute(deletes)
    return database_url()


@cache
def _eraser() -> "tuple[psycopg.Connection[Any], str]":
    """A connection that does not check foreign keys, and the statements that empty all tables."""
    import psycopg

    connection = psycopg.connect(database_url(), autocommit=True, options="-c session_replication_role=replica")
    atexit.register(connection.close)
    names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return connection, "".join(f"DELETE FROM {name};" for (name,) in names if name != "schema_migrations")


def take_over(path: Path) -> None:
    """Copy the SQLite database at `path` into this process's database."""
    from backend.cli.move import move

    move(path, database_url())
