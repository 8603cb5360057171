"""The conformance checks hold for two workers of production, with limits that count."""

import json
import subprocess
import sys

from tests.cli.running import ROOT, run
from tests.conformance.client import PASSWORD
from tests.production.real_service import service

ADMIN, ORIGIN = "root@example.com", "https://app.example"
SETTINGS = {"RATE_LIMIT_DEFAULT": "3000/60", "RATE_LIMIT_AUTH": "150/3600", "CORS_ORIGINS": ORIGIN,
            "REFRESH_GRACE_SECONDS": "300"}  # fmt: skip


def test_production_keeps_every_promise(tmp_path, database_path):
    assert run(database_path, "create-admin", ADMIN, ADMIN_PASSWORD=PASSWORD).returncode == 0
    with service(tmp_path / "log", database_path, **SETTINGS) as server:
        command = [sys.executable, "-m", "tests.conformance", f"http://127.0.0.1:{server.address[1]}", "--json"]
        done = subprocess.run(
            [*command, "--admin", ADMIN, "--origin", ORIGIN], cwd=ROOT, env={"ADMIN_PASSWORD": PASSWORD},
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
    report = json.loads(done.stdout)
    assert (done.returncode, report["broken"], report["skipped"]) == (0, 0, 0), done.stdout
