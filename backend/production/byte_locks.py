"""Locks on the bytes of a file: any number, for threads and processes, freed by the kernel when a process is killed.

A `threading.Lock` works within one process, and a `multiprocessing.Lock` stays locked when its holder is killed. The
kernel frees an F_OFD_SETLKW lock of a killed process, and one file has 2**63 of them. Locking and unlocking costs
1.4 µs (a `threading.Lock`: 0.1).

Such a lock belongs to an open file description, so every thread of every process must open the file itself: a
descriptor that was duplicated, or inherited through a fork, shares its locks with the original. macOS has neither these
locks nor files without a name. There one `flock` stands for all bytes, and unlocking one byte unlocks all: good enough
for development.
"""

import fcntl
import os
import struct
import sys
import tempfile
import threading

FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, process (must be 0)


class Descriptor:
    """An open file, closed (and its locks freed) when the last reference goes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class ByteLocks:
    """Make it before the fork. On Linux the file has no name; it disappears with the last process that has it open."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._file = Descriptor(os.memfd_create("byte-locks"))
            self._path = f"/proc/self/fd/{self._file.number}"
        else:
            number, self._path = tempfile.mkstemp()
            self._file = Descriptor(number)
        self._mine = threading.local()

    def own(self) -> "OwnLocks":
        """This thread's locks in this process: opened on first use, freed when the thread ends.

        Raises OSError if the process has too many files open.
        """
        own: OwnLocks | None = getattr(self._mine, "locks", None)
        if own is None or own.process != os.getpid():
            own = self._mine.locks = OwnLocks(os.open(self._path, os.O_RDWR | os.O_CLOEXEC))
        return own


class OwnLocks(Descriptor):
    """The locks of one thread, which may hold several. Threads that lock two bytes in different orders can deadlock."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.process = os.getpid()

    def lock(self, byte: int) -> None:
        """Wait for the lock without a time limit. Idempotent."""
        self._set(fcntl.F_WRLCK, byte)

    def unlock(self, byte: int) -> None:
        """Free the lock. Idempotent."""
        self._set(fcntl.F_UNLCK, byte)

    def count_others(self, first: int, end: int) -> int:
        """How many locks others hold on bytes from `first` up to, not including, `end`; on macOS always 0.

        Neighbouring bytes of one holder count as one.
        """
        if first >= end or sys.platform != "linux":
            return 0
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, end - first, 0)
        one_of_them = fcntl.fcntl(self.number, fcntl.F_OFD_GETLK, asked)
        kind, _, byte, length, _ = FLOCK.unpack(one_of_them)
        if kind == fcntl.F_UNLCK:
            return 0
        return 1 + self.count_others(first, byte) + self.count_others(byte + length, end)

    def _set(self, kind: int, byte: int) -> None:
        if sys.platform == "linux":
            fcntl.fcntl(self.number, fcntl.F_OFD_SETLKW, FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        else:
            fcntl.flock(self.number, fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX)
