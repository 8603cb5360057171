"""The deployment on a machine of its own that boots a real systemd: the README's block, and what operators do later."""

import contextlib
import http.client
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import PASSWORD, Person
from tests.operations.booted_machine import PATH, SECONDS, Machine, booted_machine
from tests.operations.https_load import nothing_lost
from tests.operations.real_nginx import Nginx
from tests.production.gunicorn_server import ROOT
from tests.waiting import wait_until

SOURCES = ("pyproject.toml", ".LICENSE", "README.md", "app.py", "backend", "sql")
HERE = "Python {}.{}".format(*sys.version_info)
HAS_VENV = f"import ensurepip, sys; sys.exit('Python {{}}.{{}}'.format(*sys.version_info) != {HERE!r})"
SERVER = "reference-backend-server.service"


def block() -> str:
    """The commands that the README gives for a bare machine."""
    text = (ROOT / "backend/operations/README.md").read_text(encoding="utf-8")
    return text.partition("\n## Deploy\n")[2].partition("```sh\n")[2].partition("```")[0]


def requirements_of(name: str, extra: str = "") -> Iterator[str]:
    """The packages that this one needs, and those that they need."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name
            yield from requirements_of(requirement.name)


def make_wheel(name: str, folder: Path) -> None:
    """A wheel of the installed package, to install it without a network."""
    package = importlib.metadata.distribution(name)
    (tag,) = re.findall(r"^Tag: (\S+)", package.read_text("WHEEL") or "", re.MULTILINE)[:1]
    with zipfile.ZipFile(folder / f"{name}-{package.version}-{tag}.whl", "w") as wheel:
        for file in package.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), file)


@pytest.fixture
def machine(tmp_path):
    """A machine with the packages that the block's first command installs, but without the service."""
    python = subprocess.run(["python3", "-c", HAS_VENV], env={"PATH": PATH}, capture_output=True, check=False)
    if python.returncode or not shutil.which("nginx", path=PATH) or not shutil.which("openssl", path=PATH):
        pytest.skip(
            f"nginx, openssl or the module venv of {HERE} is missing: apt-get install python3-venv nginx openssl"
        )
    files = tmp_path / "files"
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (files / "reference-backend" / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, files / "reference-backend" / name)
    (files / "wheels").mkdir()
    for name in {"setuptools", *requirements_of("reference-backend", "metrics")}:
        make_wheel(name, files / "wheels")
    with booted_machine(tmp_path / "machine", files) as machine:
        machine.run("ln -s /bin/true /usr/local/sbin/apt-get")  # no network: the packages are this machine's
        machine.run("hostname localhost")  # for the certificate
        yield machine


def type_block(machine: Machine, output: Path) -> None:
    """Run the block on a terminal, and type the password when it is asked for."""
    script = f"cd /srv/reference-backend\nexport PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels\nset -e\n{block()}"
    machine.run(f"cat > /root/block <<'END'\n{script}\nEND")
    command = [*machine.enter, "script", "--quiet", "--return", "--command", "bash /root/block", "/dev/null"]
    with output.open("wb") as shown, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=shown) as process:
        wait_until(lambda: "Password:" in output.read_text() or process.poll() is not None, SECONDS)
        assert process.stdin and process.poll() is None, output.read_text()
        process.stdin.write(f"{PASSWORD}\n".encode())
        process.stdin.flush()
        assert process.wait(SECONDS) == 0, output.read_text()


@pytest.mark.parametrize("unit", ["server", "backup"])
def test_systemd_rates_the_exposure_of_a_unit_as_low(unit):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    file = ROOT / f"backend/operations/deploy/systemd/reference-backend-{unit}.service"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", file]  # in tenths
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_block_makes_a_bare_machine_a_service(machine, tmp_path):
    assert len(block().replace("\\\n", "").splitlines()) <= 10
    type_block(machine, tmp_path / "block.log")
    assert "root@example.org is an admin" in (tmp_path / "block.log").read_text()
    assert machine.run("systemctl --failed --quiet") == ""
    units = "/etc/systemd/system/reference-backend-*.{service,socket,timer}"
    assert machine.run(f"systemd-analyze verify {units} 2>&1") == ""
    no_secret_is_shown(machine)
    the_socket_is_nginxs(machine)
    a_setting_is_changed(machine)
    with machine.network():
        nothing_is_lost_by_a_restart_and_a_backup(machine, tmp_path / "certificate.pem")
    each_request_is_logged(machine)
    a_lost_database_is_restored(machine)
    a_killed_server_comes_back(machine)
    the_page_is_there(machine)


def no_secret_is_shown(machine: Machine) -> None:
    secret = machine.run("cat /etc/credstore/reference-backend.JWT_SECRETS").strip()
    shown = machine.run(f"systemctl show {SERVER}; journalctl --no-pager --output=export; ps axeww")
    assert SERVER in shown and secret not in shown
    assert "jwt-secret" not in machine.run("ls /var/lib/reference-backend")  # which it would generate without one


def the_socket_is_nginxs(machine: Machine) -> None:
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/reference-backend.sock')"
    machine.run(f'setpriv --reuid=www-data --clear-groups python3 -c "{connect}"')
    refused = machine.run(f'! setpriv --reuid=nobody --clear-groups python3 -c "{connect}" 2>&1')
    assert "Permission denied" in refused


def a_setting_is_changed(machine: Machine) -> None:
    settings = "RATE_LIMIT_DEFAULT=off BUSY_TIMEOUT_SECONDS=300"
    machine.run(f"printf '%s\\n' {settings} > /etc/reference-backend.env; systemctl restart {SERVER}")


def nothing_is_lost_by_a_restart_and_a_backup(machine: Machine, certificate: Path) -> None:
    certificate.write_text(machine.run("cat /etc/ssl/certs/reference-backend.pem"))
    nginx = Nginx(80, 9180, 443, certificate)
    login = nginx.call("POST", "/auth/login", json_={"email": "root@example.org", "password": PASSWORD}).data
    root = Person("", "root@example.org", login["accessToken"], login["refreshToken"])
    accounts = [nginx.call("POST", "/accounts", root, {"currency": "EUR"}).data["id"] for _ in range(2)]
    assert nginx.call("POST", f"/accounts/{accounts[0]}/deposits", root, {"amount": 1_000_000}).status == 201
    with nothing_lost(nginx, root, accounts):
        machine.run(f"systemctl restart {SERVER}")
        the_nightly_backup_runs(machine)


def each_request_is_logged(machine: Machine) -> None:
    """A JSON line for each request, with the client's address."""
    lines = machine.run(f"journalctl --unit={SERVER} --output=cat --no-pager").splitlines()
    requests = [json.loads(line) for line in lines if '"path"' in line]
    assert {"127.0.0.1"} == {request["client"] for request in requests}
    assert "/api/v1/transfers" in {request["path"] for request in requests}


def the_nightly_backup_runs(machine: Machine) -> None:
    """It makes one copy, which is whole, and removes the one that is two weeks old."""
    machine.run("touch --date=-15days /var/lib/reference-backend/backups/old.db")
    machine.run("systemctl start reference-backend-backup.service")
    (copy,) = machine.run("cd /var/lib/reference-backend && ls backups/*").split()
    machine.run(f"reference-backend verify {copy}")
    assert "reference-backend-backup.timer" in machine.run("systemctl list-timers --no-pager")


def a_lost_database_is_restored(machine: Machine) -> None:
    """The metrics show the loss and its end; the user who was in the backup comes back."""
    assert metric(machine, "database_up") == "1.0"
    machine.run("rm /var/lib/reference-backend/app.db*")
    wait_until(lambda: metric(machine, "database_up") == "0.0")
    machine.run("systemctl stop reference-backend-server.socket")
    machine.run("cd /var/lib/reference-backend; reference-backend restore backups/*.db")
    machine.run(f"systemctl start {SERVER}")
    wait_until(lambda: metric(machine, "database_up") == "1.0")
    assert "root@example.org" in machine.run("reference-backend users")


def a_killed_server_comes_back(machine: Machine) -> None:
    """systemd starts a killed server again; requests wait at the socket."""
    machine.run(f"systemctl kill --kill-who=all --signal=KILL {SERVER}")
    assert '"ok"' in ask(machine, "/healthz")


def the_page_is_there(machine: Machine) -> None:
    page = machine.run("curl -s --insecure https://localhost/docs")
    assert "/docs/swagger-ui" in page


def metric(machine: Machine, name: str) -> str:
    (value,) = re.findall(rf"^{name} (\S+)$", ask(machine, "/metrics"), re.MULTILINE)
    return value


def ask(machine: Machine, path: str) -> str:
    """The body of an answer at the address for this machine's own monitoring."""
    with machine.network(), contextlib.closing(http.client.HTTPConnection("localhost", 9180, timeout=SECONDS)) as probe:
        probe.request("GET", path)
        answer = probe.getresponse()
        assert answer.status == 200
        return answer.read().decode()
