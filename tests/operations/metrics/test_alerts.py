"""The alerts are rules that Prometheus accepts, fire on what they name, and ask for metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "backend/operations/alerts.yml"
README = ROOT / "backend/operations/README.md"
METRIC = re.compile(r"\b((?:http|write_lock|auth|rate_limit|cache|bcrypt|outbox|sqlite|database|build)_[a-z_]+)\b(?!=)")


def promtool(*arguments: str | Path, folder: Path) -> str:
    """What it prints. Fails unless it exits with 0."""
    program = shutil.which("promtool")
    if not program:
        pytest.skip("there is no promtool: apt-get install prometheus")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(tmp_path):
    assert "11 rules found" in promtool("check", "rules", ALERTS, folder=tmp_path)


def test_each_alert_fires_on_what_it_names_and_none_on_a_healthy_service(tmp_path):
    for file in (ALERTS, Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", "alerts_test.yml", folder=tmp_path)


def promql_of_the_readme() -> list[str]:
    section = README.read_text(encoding="utf-8").partition("\n## Metrics and alerts\n")[2].partition("\n## ")[0]
    return re.findall(r"^```promql\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [ALERTS.read_text(encoding="utf-8"), *promql_of_the_readme()])
def test_each_metric_that_is_asked_for_is_one_that_is_sent(api, scrape, ada, text):
    api.get("//healthz")
    scrape()
    sent = {re.split(r"[{ ]", line)[0] for line in scrape().text.splitlines()}
    asked = set(METRIC.findall("\n".join(line.partition("#")[0] for line in text.splitlines())))
    assert asked
    assert asked - sent == set()


def test_the_readme_has_promql():
    assert len(promql_of_the_readme()) >= 1
