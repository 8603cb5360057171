"""Plain gunicorn, as a blog post starts it: a `gthread` worker and no configuration file."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.conftest import SECRET
from tests.lessons import Stage
from tests.production.gunicorn_server import ROOT, Server
from tests.waiting import wait_until


@contextmanager
def gthread(
    stage: Stage, application: str, workers: int, threads: int, *options: str, **environment: str
) -> Iterator[Server]:
    """A running server, by default without limits, on a free port."""
    settings = {"DATABASE_URL": f"sqlite:///{stage.database}", "JWT_SECRETS": SECRET, "BCRYPT_ROUNDS": "4"}
    settings |= {"RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "off"} | environment
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:0", "-k", "gthread"]
    command += ["--workers", str(workers), "--threads", str(threads), *options, application]
    log = stage.folder / "log"
    with log.open("wb") as errors, subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stderr=errors, start_new_session=True
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: "Listening at" in log.read_text())
            port = re.search(r"Listening at: \S+?:(\d+) ", log.read_text())
            server = Server(process, log, ("127.0.0.1", int(port[1]) if port else 0))
            server.wait_for_workers(workers)
            yield server
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
