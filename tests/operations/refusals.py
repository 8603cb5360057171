"""What a command that cannot do its work must leave: one line, exit status 2, and every file as it was."""

import subprocess
from pathlib import Path

from tests.cli.running import COMMAND, environment

LIMITED = ["sh", "-c", 'ulimit -f "$1"; shift; exec "$@"', "sh"]  # in blocks of 512 bytes


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The single line of error of a command that could not begin."""
    assert done.returncode == 2, done
    [line] = done.stderr.splitlines()
    assert done.stdout == ""
    return line


def on_a_full_disk(blocks: int, database: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command where no file can grow beyond so many blocks."""
    return subprocess.run(
        [*LIMITED, str(blocks), *COMMAND, *arguments], env=environment(database), cwd=database.parent,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def files_in(folder: Path) -> dict[str, bytes]:
    """The content of every file in the folder and below, except of empty ones, such as the gate."""
    return {
        str(path.relative_to(folder)): content
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (content := path.read_bytes())
    }
