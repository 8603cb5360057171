"""The files of the service are readable for its own user only: mode 0600, in folders of mode 0700, whatever the umask.

The database holds every password hash, and a process that can open the gate or the `-shm` can lock all writers out.
Each file is created with its mode; SQLite gives `-wal`, `-shm` and `-journal` the mode of the database. A looser mode
is reported but not changed, because an operator may have set it.
"""

import contextlib
import stat
from pathlib import Path
from typing import NamedTuple

FILE, FOLDER = 0o600, 0o700
OTHERS, WRITE = 0o077, 0o022
COMPANIONS = ("", "-wal", "-shm", "-journal", "-gate")


class LooseMode(NamedTuple):
    """A file or folder that other users of the machine can access."""

    path: Path
    mode: int
    wanted: int

    @property
    def exposes(self) -> bool:
        """Whether other users can read or change contents. False for a folder that they can only list."""
        return self.wanted == FILE or bool(self.mode & WRITE)

    def __str__(self) -> str:
        return f"{self.path} has mode {self.mode:04o}; {self.wanted:04o} keeps other users of the machine out"


def make_folder(path: Path) -> None:
    """Create the folder and its missing parents. (`mkdir(parents=True)` would create the parents by the umask.)"""
    for folder in [*reversed(path.parents), path]:
        folder.mkdir(mode=FOLDER, exist_ok=True)


def loose_modes(database: Path) -> list[LooseMode]:
    """The files and folders of the service beside `database` that other users of the machine can access."""
    files = [database.with_name(f"{database.name}{suffix}") for suffix in COMPANIONS]
    wanted = {database.parent: FOLDER, database.parent / "outbox": FOLDER, **dict.fromkeys(files, FILE)}
    found = []
    for path, mode in wanted.items():
        with contextlib.suppress(OSError):  # absent
            found.append(LooseMode(path, stat.S_IMODE(path.stat().st_mode), mode))
    return [loose for loose in found if loose.mode & OTHERS]
