"""A file descriptor that closes itself: the kernel frees its locks when its holder forgets it, or is killed."""

import os


class Descriptor:
    """Owns `number`, which is closed when the last reference goes. A forked child shares it with its parent."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process = os.getpid()  # whose it is

    def close(self) -> None:
        """Idempotent."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()
