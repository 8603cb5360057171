"""The folder in which the workers of one service keep their counts, until its last master ends.

prometheus_client names a worker's files by process id and leaves those of dead workers, whose counts must stay: after a
year of nightly reloads a scrape reads 2,000 files of 64 KiB. It leaves the folder to the operator, and counts whatever
an earlier run has left in it.

Here the master makes the folder, with mode 0700, in memory where the system has /dev/shm: on a full disk a write to a
mapped file kills the process. A worker's files have the number that its master gave it. The master gives the number of
a dead worker to a new one, which counts on in the same files. So there are as many files as workers were alive at once.

All processes of the service hold a lock on the folder. A master that ends removes it if no other holds the lock: after
an upgrade (SIGUSR2) old and new master share the folder. The kernel frees the lock of a killed master, and the next
master to start, of any service, removes the folder that it left. Its counts are never used: each start makes a folder
of its own.

Not promised: counts after the last master has ended, or with /dev/shm full, where a new worker cannot start.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import cache
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # which prometheus_client reads when it is imported
PREFIX = "reference-backend-metrics-"
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the name and the mode


class MetricsFolder:
    """The folder as one process sees it. `worker` names this worker's files; it is empty outside a worker."""

    def __init__(self) -> None:
        self.worker = ""
        self._lock = -1  # the descriptor of the locked folder

    def path(self) -> Path | None:
        """None outside gunicorn."""
        return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None

    def open(self, upgrade: bool) -> None:
        """In a master, before its first worker: make the folder, or with `upgrade` share that of the old master.

        Raises OSError.
        """
        parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        _remove_stale(parent)
        folder = self.path()
        if not upgrade or folder is None or not folder.is_dir():
            folder = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
        self._lock = _locked(folder, LOCK_SH)
        if folder.name.startswith("."):  # locked before it has a name that other masters look for
            folder = folder.rename(parent / folder.name[1:])
        os.environ[VARIABLE] = str(folder)

    def begin_worker(self, number: int) -> None:
        """In a new worker, which its master has given this number."""
        self.worker = f"{os.getppid()}-{number}"

    def end_worker(self, number: int) -> None:
        """In a master, after a worker's death: it has no request in flight any more."""
        from prometheus_client.multiprocess import mark_process_dead  # here, because the package may be missing

        mark_process_dead(f"{os.getpid()}-{number}")

    def close(self) -> None:
        """In a master that ends: remove the folder, unless another master uses it."""
        folder = self.path()
        if folder and self._lock >= 0:
            with suppress(OSError):
                flock(self._lock, LOCK_EX | LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def has_metrics() -> bool:
    """Whether the package that `/metrics` needs is installed."""
    return find_spec("prometheus_client") is not None


@cache
def metrics_folder() -> MetricsFolder:
    """The one of this process; a worker inherits its master's."""
    return MetricsFolder()


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or in use
            descriptor = _locked(folder, LOCK_EX | LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _locked(folder: Path, operation: int) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
