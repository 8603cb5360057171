"""The files of the service are for its own user alone: mode 0600, in folders of mode 0700, whatever the umask.

To read the database is to read every password hash, and to open the gate or the `-shm` is enough to lock all writers
out. Each file is made with its mode; SQLite gives `-wal`, `-shm` and `-journal` that of the database. A looser mode
that is found is reported and left as it is: an operator may have set it.
"""

import contextlib
import stat
from pathlib import Path
from typing import NamedTuple

FILE, FOLDER = 0o600, 0o700
OTHERS, WRITE = 0o077, 0o022
COMPANIONS = ("", "-wal", "-shm", "-journal", "-gate")


class LooseMode(NamedTuple):
    """A file or folder that admits other users of the machine."""

    path: Path
    mode: int
    wanted: int

    @property
    def exposes(self) -> bool:
        """Whether other users get at its contents; False for a folder that they may only list."""
        return self.wanted == FILE or bool(self.mode & WRITE)

    def __str__(self) -> str:
        return f"{self.path} has mode {self.mode:04o}; {self.wanted:04o} keeps other users of the machine out"


def make_folder(path: Path) -> None:
    """Make the folder, and those above it that are missing. (`mkdir(parents=True)` makes the latter by the umask.)"""
    for folder in [*reversed(path.parents), path]:
        folder.mkdir(mode=FOLDER, exist_ok=True)


def loose_modes(database: Path) -> list[LooseMode]:
    """Every file beside `database` that is the service's and its folders, if their modes admit other users."""
    files = [database.with_name(f"{database.name}{suffix}") for suffix in COMPANIONS]
    wanted = {database.parent: FOLDER, database.parent / "outbox": FOLDER, **dict.fromkeys(files, FILE)}
    found = []
    for path, mode in wanted.items():
        with contextlib.suppress(OSError):  # not there, or no longer
            found.append(LooseMode(path, stat.S_IMODE(path.stat().st_mode), mode))
    return [loose for loose in found if loose.mode & OTHERS]
