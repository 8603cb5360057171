"""Several hosts on one machine: network namespaces on a front network for clients and a back network for the database.

The test's own process is the client, as long as it is inside `network()`. Needs root, `ip` and `nsenter`.
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET
from tests.postgres_server import BINARIES
from tests.production.gunicorn_server import ROOT, Server, listens
from tests.production.real_service import LOST, Caller
from tests.waiting import wait_until

NETWORKS = {"front": ("client", "a", "b"), "back": ("db", "a", "b", "client")}
ADDRESS = {"front": "10.77.1.{}", "back": "10.77.2.{}"}
CLIENT = ADDRESS["front"].format(1)
WIRES = "wires"  # the namespace of the switches
CLONE_NEWNET = 0x40000000


def name_of(host: str) -> str:
    return f"several-hosts-{os.getpid()}-{host}"


def ip(host: str, *arguments: object) -> None:
    subprocess.run(["ip", "-n", name_of(host), *map(str, arguments)], check=True, capture_output=True)


def on(host: str) -> list[str]:
    """What to put before a command that is to run on this host."""
    return ["nsenter", f"--net=/run/netns/{name_of(host)}"]


def set_cable(host: str, network: str, state: str) -> None:
    """Pull the host's cable out of the network's switch ("down"), or put it in again ("up")."""
    ip(WIRES, "link", "set", f"{host}-{network}", state)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """Both networks and their hosts. Skips the test where namespaces are not allowed."""
    hosts = [WIRES, *dict.fromkeys(host for members in NETWORKS.values() for host in members)]
    if not (shutil.which("ip") and shutil.which("nsenter")):
        pytest.skip("there is no `ip` or no `nsenter`")
    with contextlib.ExitStack() as stack:
        for host in hosts:
            made = subprocess.run(["ip", "netns", "add", name_of(host)], check=False, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
            stack.callback(subprocess.run, ["ip", "netns", "delete", name_of(host)], check=True)
            ip(host, "link", "set", "lo", "up")
        for switch, members in NETWORKS.items():
            ip(WIRES, "link", "add", switch, "type", "bridge")
            ip(WIRES, "link", "set", switch, "up")
            for number, host in enumerate(members, start=1):
                port = f"{host}-{switch}"
                ip(WIRES, *f"link add {port} type veth peer name {switch} netns {name_of(host)}".split())
                ip(WIRES, "link", "set", port, "master", switch, "up")
                ip(host, "address", "add", f"{ADDRESS[switch].format(number)}/24", "dev", switch)
                ip(host, "link", "set", switch, "up")
        stack.enter_context(_entered("client"))
        yield


@contextlib.contextmanager
def _entered(host: str) -> Iterator[None]:
    """This thread, and what it starts, is on the host."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns comes with Python 3.12
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{name_of(host)}").open() as there:
        for namespace in (there, home):
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            if namespace is there:
                yield


class DatabaseHost:
    """PostgreSQL on the host `db`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._address = ADDRESS["back"].format(1)
        self.url = f"postgresql://test@{self._address}/postgres"

    def create(self) -> None:
        self._run("initdb", "--username=test", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/16 trust\n")
        # A rule of the firewall is to come before the rule that delivers packets, and to see each packet.
        ip("db", *"rule add pref 100 lookup local".split())
        ip("db", *"rule delete pref 0".split())
        options = ["net.ipv4.tcp_early_demux=0", "net.ipv4.ip_early_demux=0"]
        subprocess.run([*on("db"), "sysctl", "--quiet", "--write", *options], check=True)

    def start(self) -> None:
        options = f"-c listen_addresses={self._address} -c max_connections=200 -k {self._folder}"
        self._run("pg_ctl", "start", "--wait", "--log", f"{self._folder}/log", "--options", options)

    def crash(self) -> None:
        """End it without a checkpoint: the next start recovers."""
        self._run("pg_ctl", "stop", "--mode=immediate")

    def forget(self, ports: set[int]) -> None:
        """From now on, the host's firewall drops the packets of these connections without a word."""
        for port in ports:
            ip("db", *f"rule add pref 10 ipproto tcp sport {port} dport 5432 blackhole".split())

    def _run(self, program: str, *options: str) -> None:
        command = [*on("db"), "setpriv", f"--reuid={_user().pw_uid}", f"--regid={_user().pw_gid}", "--clear-groups"]
        subprocess.run(
            [*command, self._binaries / program, "-D", f"{self._folder}/data", *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _user() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    return next((entry for entry in pwd.getpwall() if entry.pw_name == "postgres"), pwd.getpwnam("nobody"))


@contextlib.contextmanager
def database_host() -> Iterator[DatabaseHost]:
    if BINARIES is None or not shutil.which("setpriv"):
        pytest.skip("there is no `pg_ctl` or no `setpriv` on this machine")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    shutil.chown(folder, _user().pw_uid)
    host = DatabaseHost(BINARIES, folder)
    try:
        host.create()
        host.start()
        yield host
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may be down
            host.crash()
        shutil.rmtree(folder, ignore_errors=True)


class ApplicationHost:
    """Gunicorn with two workers on the host, with the default time-outs."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.name, self._folder, self._starts = name, folder, 0
        self.address = ADDRESS["front"].format(NETWORKS["front"].index(name) + 1), 8000
        self._environment = environment | {
            "BIND": f"{self.address[0]}:{self.address[1]}", "WEB_CONCURRENCY": "2", "JWT_SECRETS": SECRET,
            "BCRYPT_ROUNDS": "4", "RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "off",
        }  # fmt: skip
        self.server: Server

    def start(self) -> None:
        self._starts += 1
        log = self._folder / f"{self.name}-{self._starts}.log"
        command = [*on(self.name), sys.executable, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | self._environment, stderr=output, start_new_session=True
            )
        self.server = Server(process, log, self.address)
        wait_until(lambda: len(pids := self.server.workers()) == 2 and all(map(listens, pids)))

    def kill(self) -> None:
        """All its processes at once."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def readiness(self) -> int | None:
        """The status of `/readyz`; None without an answer."""
        try:
            with Caller(self.address) as caller:
                return caller.call("GET", "//readyz").status
        except LOST:
            return None

    def ports(self) -> set[int]:
        """The ports of its present connections to the database."""
        shown = subprocess.run(
            [*on(self.name), "ss", "--no-header", "-tn", "dport", "=", ":5432"], check=True, capture_output=True,
            text=True,
        )  # fmt: skip
        return {int(line.split()[3].rpartition(":")[2]) for line in shown.stdout.splitlines()}


@contextlib.contextmanager
def application_host(name: str, folder: Path, **environment: Any) -> Iterator[ApplicationHost]:
    host = ApplicationHost(name, folder, **environment)
    host.start()
    try:
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            host.kill()
