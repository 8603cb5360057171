"""Locks on the bytes of a file: as many as one likes, for threads and processes alike, freed by the kernel at a kill.

A `multiprocessing.Lock` stays shut for ever when its holder is killed; an F_OFD_SETLKW lock does not, and one file
has 2**63 of them. Such a lock belongs to an open file description, so every thread of every process must open the
file itself: a descriptor that was duplicated, or came through a fork, shares its locks with the one it came from.
A Mac has neither such locks nor such files: there one `flock` stands for all bytes (to free one
byte frees all), good enough to develop on.
"""

import fcntl
import os
import struct
import sys
import tempfile
import threading

from backend.infrastructure.descriptor import Descriptor

FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, length, process (must be 0)


class ByteLocks:
    """Make it before the fork; the file has no name and goes with the last process that has it."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._file = Descriptor(os.memfd_create("byte-locks"))
            self._path = f"/proc/self/fd/{self._file.number}"
        else:
            number, self._path = tempfile.mkstemp()
            self._file = Descriptor(number)
        self._mine = threading.local()

    def own(self) -> "OwnLocks":
        """The locks as this thread of this process takes them. Opened on first use, closed when the thread ends."""
        own: OwnLocks | None = getattr(self._mine, "locks", None)
        if own is None or own.process != os.getpid():
            own = self._mine.locks = OwnLocks(os.open(self._path, os.O_RDWR | os.O_CLOEXEC))
        return own


class OwnLocks(Descriptor):
    """One thread's. It may hold several; threads that take them in different orders may wait for ever."""

    def lock(self, byte: int) -> None:
        """Wait for the lock, as long as it takes. To have it already is no error."""
        self._set(fcntl.F_WRLCK, byte)

    def unlock(self, byte: int) -> None:
        """Free the lock. Not to have it is no error."""
        self._set(fcntl.F_UNLCK, byte)

    def count_others(self, first: int, end: int) -> int:
        """How many locks others hold on bytes from `first` up to, not including, `end`; on a Mac always 0.

        Neighbouring bytes of one holder are one lock.
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
