"""`demo`: a tour of the API, against a server of its own."""

import os
import signal
import subprocess

from tests.cli.running import COMMAND, environment, run
from tests.waiting import wait_until


def test_every_answer_of_the_demo_is_the_expected_one(tmp_path):
    """The database of the settings is not touched."""
    done = run(tmp_path / "untouched.db", "demo", RATE_LIMIT_DEFAULT="1/60", JWT_SECRETS="s" * 32)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_demo_can_be_interrupted(tmp_path):
    """By Ctrl-C, which its server gets as well. Nothing is left behind.

    The whole tour does not fit into the pipe, so the demo cannot end before the signal.
    """
    settings = environment(tmp_path / "untouched.db", TMPDIR=str(tmp_path))
    with subprocess.Popen(
        [*COMMAND, "demo"], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        bufsize=0, pipesize=4096,
    ) as process:  # fmt: skip
        while "→ 201" not in process.stdout.readline().decode():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"")
    wait_until(lambda: list(tmp_path.iterdir()) == [])
