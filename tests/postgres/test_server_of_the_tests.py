"""The server that the tests start."""

import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.postgres_server import BINARIES
from tests.waiting import wait_until

START = """
import sys
from tests.postgres_server import BINARIES, Server
server = Server(BINARIES)
with server.running():
    print(server.url, flush=True)
    sys.stdin.read()
"""


def command_of(process):
    """Empty for a process that has ended, also while its parent has not taken notice."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.skipif(not BINARIES, reason="this machine has no pg_ctl")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_process_that_started_it(end):
    """And its folder is deleted."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", START], cwd=root, stdin=-1, stdout=-1, text=True) as starter:
        url = starter.stdout.readline().strip()
        folder = Path(url.partition("host=")[2])
        psycopg.connect(url).close()
        server = int((folder / "data/postmaster.pid").read_text().split()[0])
        assert command_of(server)
        starter.send_signal(end)
    wait_until(lambda: not folder.exists())
    wait_until(lambda: command_of(server) == b"")  # it deletes its pid file before it ends
