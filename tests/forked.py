"""Real child processes for tests: a function, run in a fork, whose result comes back through a pipe."""

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any


class Forked:
    """A forked child that runs `work` and exits, after at most ten minutes, without pytest's clean-up."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._result, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                signal.alarm(600)
                os.write(told, pickle.dumps(work()))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(told)

    def result(self) -> Any:
        """What `work` returned, once the child has ended. Raises EOFError if it was killed before."""
        with os.fdopen(self._result, "rb") as pipe:
            told = pipe.read()
        os.waitpid(self.pid, 0)
        return pickle.loads(told) if told else _nothing(self.pid)

    def kill(self) -> None:
        """Kill it with SIGKILL, as the kernel does when memory is short. It is dead when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._result)
        os.waitpid(self.pid, 0)


def _nothing(pid: int) -> None:
    raise EOFError(f"process {pid} ended without a result")


class Signal:
    """A one-time signal from one process to another."""

    def __init__(self) -> None:
        self._heard, self._said = os.pipe()

    def say(self) -> None:
        os.write(self._said, b"!")

    def wait(self) -> None:
        os.read(self._heard, 1)

    def __del__(self) -> None:
        os.close(self._heard)
        os.close(self._said)
