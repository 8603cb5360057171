"""The readiness check for disk space, and the size of a file."""

import shutil
from pathlib import Path

from backend.errors import Unavailable

LEAST = 32 * 2**20  # bytes: room for the write-ahead log and the next checkpoint


def check_disk_space(path: Path) -> None:
    """Raise Unavailable if the disk that holds `path`, or would hold it, is nearly full."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST:
        raise Unavailable(f"{free // 2**20} MB are free, {LEAST // 2**20} needed.")


def size_of(file: Path) -> int:
    """In bytes; 0 if there is no such file."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
