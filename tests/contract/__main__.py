"""`make contract`: independent tools read the OpenAPI document and test the service against it.

Spectral lints the document by its `oas` rules. Schemathesis generates requests from it, valid and invalid ones, sends
them to a gunicorn with two workers, and checks that each answer is as documented. Either finding is a failure.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from backend.infrastructure.migrations import migrate
from tests.conftest import PASSWORD, SECRET, Person
from tests.production.gunicorn_server import Server
from tests.production.real_service import call, service

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ADMIN = "root@example.com"


def main(spectral: str, schemathesis: str) -> int:
    """The exit code: 0 if neither tool has found anything. The arguments are the tools' programs."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "app.db"
        migrate(database)
        make_admin(database)
        with service(Path(folder) / "server.log", database) as server:
            return lint(spectral, server, Path(folder)) or attack(schemathesis, server)


def make_admin(database: Path) -> None:
    settings = {"DATABASE_URL": f"sqlite:///{database}", "JWT_SECRETS": SECRET, "BCRYPT_ROUNDS": "4"}
    command = [sys.executable, "app.py", "create-admin", ADMIN]
    subprocess.run(command, cwd=ROOT, env=os.environ | settings | {"ADMIN_PASSWORD": PASSWORD}, check=True)


def lint(spectral: str, server: Server, folder: Path) -> int:
    """As the service serves the document, not as the code builds it."""
    document = folder / "openapi.json"
    document.write_bytes(server.ask(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").body)
    command = [spectral, "lint", document, "--ruleset", HERE / "spectral.yaml", "--fail-severity", "hint"]
    return subprocess.run(command, check=False).returncode


def attack(schemathesis: str, server: Server) -> int:
    pair = call(server, "POST", "/auth/login", None, {"email": ADMIN, "password": PASSWORD}).data
    by = Person("", ADMIN, pair["accessToken"], pair["refreshToken"])
    host, port = server.address
    command = [schemathesis, "--config-file", HERE / "schemathesis.toml", "run", f"http://{host}:{port}/openapi.json"]
    command += ["--header", f"Authorization: {by.headers['Authorization']}"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
