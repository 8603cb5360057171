"""The package as `pip install .` installs it: a wheel in an environment of its own, used outside the checkout."""

import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.conftest import PASSWORD
from tests.every_route import VALID
from tests.production.gunicorn_server import ROOT, gunicorn
from tests.production.real_service import APPLICATION, call
from tests.waiting import wait_until

SOURCES = ("pyproject.toml", ".LICENSE", "README.md", "app.py", "backend", "sql")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that has our wheel; its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source, environment = folder / "source", folder / "environment"
    for name in SOURCES:  # a copy: a build leaves files behind, and packs those of earlier builds
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source)
    shutil.rmtree(source)
    venv.create(environment, symlinks=True)
    (wheel,) = folder.glob("*.whl")
    run(*PIP, "--python", environment / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """The program's output. Asserts that it succeeds."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment or None, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_everything_that_the_service_needs(installed, tmp_path):
    """Every migration, the list of common passwords, the licence, and a command that does what `python app.py` does."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}", "BCRYPT_ROUNDS": "4"}
    applied = run(installed / "reference-backend", "migrate", cwd=tmp_path, **settings)
    assert [line.split()[-1] for line in applied.splitlines()] == sorted(f.stem for f in ROOT.glob("sql/sqlite/*.sql"))
    run(installed / "reference-backend", "create-admin", "root@example.com", ADMIN_PASSWORD=PASSWORD, **settings)
    run(installed / "reference-backend", "check", cwd=tmp_path, **settings)
    assert "reference-backend" in run(installed / "reference-backend", "--help", **settings)
    assert len([*installed.parent.glob("lib/python*/site-packages/sql/postgres/*.sql")]) == len(
        [*ROOT.glob("sql/postgres/*.sql")]
    )
    files = run(installed / "python", "-c", "import app, backend; print(app.__file__, backend.__file__)", cwd=tmp_path)
    assert all(file.startswith(str(installed.parent)) for file in files.split())
    assert len([*installed.parent.glob("lib/python*/site-packages/*.dist-info/licenses/.LICENSE")]) == 1


def test_it_serves_under_gunicorn_from_another_folder(installed, tmp_path):
    with gunicorn(
        tmp_path / "log", python=str(installed / "python"), folder=tmp_path, application=APPLICATION, BCRYPT_ROUNDS="4"
    ) as server:
        wait_until(lambda: call(server, "GET", "//readyz").status == 200)
        for path in (key.split()[1] for key in VALID if key.startswith("GET /docs")):
            with urllib.request.urlopen("http://{}:{}{}".format(*server.address, path), timeout=30) as answer:
                assert len(answer.read()) == int(answer.headers["Content-Length"]) > 500
        lin = {"email": "lin@example.com", "name": "Lin"}
        assert call(server, "POST", "/users", json_=lin | {"password": "password123"}).status == 422
        assert call(server, "POST", "/users", json_=lin | {"password": PASSWORD}).status == 201
