"""The drill of `make drill`, shorter: the restore is killed at a few of its steps."""

from pathlib import Path

from tests.operations.drill import Drill


def test_what_was_answered_before_the_backup_is_there_after_a_crash_and_a_restore(tmp_path: Path) -> None:
    told: list[str] = []
    Drill(tmp_path, told.append).run(clients=4, every=15)
    assert "no answered transfer is missing" in told[-1]
