"""Rotation of a log file by the real logrotate, with the configuration of the README, while the server writes."""

import contextlib
import gzip
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend import operations
from tests.production.gunicorn_server import Server
from tests.production.real_service import Caller, service
from tests.waiting import wait_until

README = Path(operations.__file__).with_name("README.md")
HEALTH = '"route": "/healthz"'


def configuration(log: Path) -> str:
    """The block of the README, for this file."""
    [block] = re.findall(r"^```\n(/var/log/\S+ \{\n.*?\n\}\n)```$", README.read_text(), re.DOTALL | re.MULTILINE)
    return str(log) + block[block.index(" {") :]


def rotated(log: Path) -> list[str]:
    """The texts of the file's earlier versions, the oldest first."""
    files = sorted(log.parent.glob(f"{log.name}.*"), key=lambda file: int(file.name.split(".")[2]), reverse=True)
    return [(gzip.decompress if file.suffix == ".gz" else bytes)(file.read_bytes()).decode() for file in files]


@pytest.fixture
def rotate(tmp_path: Path) -> Callable[[Path], None]:
    """Rotates a file at once."""
    if not (logrotate := shutil.which("logrotate")):
        pytest.skip("there is no logrotate")

    def rotate(log: Path) -> None:
        config = tmp_path / "logrotate.conf"
        config.write_text(configuration(log))
        config.chmod(0o644)
        command = [logrotate, "--force", "--state", str(tmp_path / "state"), str(config)]
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    return rotate


@contextlib.contextmanager
def asking(server: Server) -> Iterator[list[int]]:
    """A client asks on one connection while the block runs. Yields the statuses of the answers so far."""
    over, statuses = threading.Event(), []

    def ask() -> None:
        with Caller(server.address, seconds=60) as caller:
            while not over.is_set():
                statuses.append(caller.call("GET", "//healthz").status)

    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(ask)
        try:
            yield statuses
        finally:
            over.set()
        client.result()


def test_a_file_is_rotated_while_the_server_writes_to_it(tmp_path: Path, database_path: Path, rotate: Any) -> None:
    """The server goes on at the start of the emptied file, and no request fails or waits for the rotation."""
    log = tmp_path / "server.log"
    with log.open("ab") as file, service(log, database_path, errors=file.fileno()) as server:
        with asking(server) as statuses:
            for _ in range(3):
                wait_until(lambda: log.read_text().count(HEALTH) > 20)
                rotate(log)
            wait_until(lambda: log.read_text().count(HEALTH) > 20)
        *earlier, current = [*rotated(log), log.read_text()]
    assert set(statuses) == {200}
    assert len(earlier) == 3 and "Booting worker" in earlier[0]
    for text in (*earlier, current):
        whole = text[: text.rfind("\n")]  # logrotate may copy a part of the last line
        assert [json.loads(line) for line in whole.split("\n")][-1]["route"] == "/healthz"
