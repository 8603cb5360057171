"""A contender's server: started on a free port of 127.0.0.1, loaded evenly, measured and stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.client import Outcome, is_whole
from tests.bench.jobs import Job
from tests.bench.load import PROCESSES, Share, run

ROOT = Path(__file__).parents[2]
START_SECONDS = 20.0
LEAVE_SECONDS = 0.02  # for a server to notice that its clients have closed
PATIENCE = 600  # seconds until gunicorn kills a stopped worker
GUNICORN = (sys.executable, "-m", "gunicorn")
GTHREAD = (  # with its defaults
    *GUNICORN, "-b", "127.0.0.1:{port}", "-k", "gthread", "-w", 2, "--threads", 8,
    "--keep-alive", 5, "--no-control-socket", "--timeout", PATIENCE,
)  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A running server. `jobs` are the jobs it serves; `greeting` is a request that waits for no lock."""

    def __init__(self, process: int, port: int, greeting: bytes) -> None:
        self.process, self.address, self.greeting = process, ("127.0.0.1", port), greeting
        self.jobs: Mapping[str, Job] = {}

    def ask(self, request: bytes) -> bytes:
        """The whole answer, on a new connection. Raises OSError."""
        with socket.create_connection(self.address, timeout=10) as stream:
            return _answer(stream, request)

    def load(self, job: str, clients: int, seconds: float) -> Outcome:
        """A load on connections spread evenly over the workers. The server is stopped afterwards."""
        self.wake()
        try:
            shares, before = self.shares(clients), self.cpu()
            outcome = run(shares, self.jobs[job], seconds)
            return replace(outcome, cpu=self.cpu() - before, memory=self.memory())
        finally:
            time.sleep(LEAVE_SECONDS)
            self.pause()

    def shares(self, clients: int) -> list[Share]:
        """New connections, as many as there are clients, for the processes of the load."""
        connections = self.connect(clients)
        return [(self.address, connections[number::PROCESSES]) for number in range(min(PROCESSES, clients))]

    def connect(self, count: int) -> list[socket.socket]:
        """New connections, accepted by the workers in turn: the others are stopped until that worker has answered.

        Otherwise the worker that wakes first may accept them all.
        """
        workers = self.workers()
        streams = []
        for turn, worker in enumerate(workers):
            with _stopped([pid for pid in workers if pid != worker]):
                for _ in range(turn, count, len(workers)):
                    streams.append(socket.create_connection(self.address, timeout=10))
                    _answer(streams[-1], self.greeting)
        return streams

    def pause(self) -> None:
        """Stop all its processes, so that its remaining work does not burden the next contender."""
        os.killpg(self.process, signal.SIGSTOP)

    def wake(self) -> None:
        os.killpg(self.process, signal.SIGCONT)

    def workers(self) -> list[int]:
        """The processes that accept connections: the children that hold the port, or the only process."""
        listening = _listening_socket(self.address[1])
        holders = [pid for pid in _children_of(self.process) if listening in _files_of(pid)]
        return holders or [self.process] * (listening in _files_of(self.process))

    def cpu(self) -> float:
        """CPU seconds so far of the whole live process tree."""
        return sum(_cpu_of(pid) for pid in _tree_of(self.process))

    def memory(self) -> float:
        """Resident megabytes of a worker, on average."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.workers()]
        return sum(pages) * PAGE / len(pages) / 1e6


class TwoHosts(Server):
    """Two servers on one database, each with half of the clients. A single client uses the first."""

    def __init__(self, first: Server, second: Server) -> None:
        super().__init__(first.process, first.address[1], first.greeting)
        self.jobs, self._hosts = first.jobs, (first, second)

    def shares(self, clients: int) -> list[Share]:
        counts = (clients - clients // 2, clients // 2)
        return [(host.address, host.connect(count)) for host, count in zip(self._hosts, counts, strict=True) if count]

    def pause(self) -> None:
        for host in self._hosts:
            host.pause()

    def wake(self) -> None:
        for host in self._hosts:
            host.wake()

    def cpu(self) -> float:
        return sum(host.cpu() for host in self._hosts)


@contextlib.contextmanager
def running(
    command: Sequence[object], folder: Path, greeting: bytes, environment: Mapping[str, object], workers: int = 2
) -> Iterator[Server]:
    """Run the command until the block ends; `{port}` becomes its port, and its output goes to a file.

    Raises RuntimeError with the output if not all workers answer the `greeting` in time.
    """
    port = free_port()
    words = [str(word).replace("{port}", str(port)) for word in command]
    variables = {name: str(value).replace("{port}", str(port)) for name, value in environment.items()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        server = Server(process.pid, port, greeting)
        if not _comes_up(server, process, workers):
            raise RuntimeError(f"{words} does not answer: {(folder / 'log').read_text(errors='replace')[-2000:]}")
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _comes_up(server: Server, process: "subprocess.Popen[bytes]", workers: int) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        # A worker that is still starting is stopped with the rest for a moment, which does no harm.
        with contextlib.suppress(OSError):
            if len(server.workers()) == workers and server.ask(server.greeting)[9:10] == b"2":
                for stream in server.connect(workers):
                    stream.close()
                return True
        time.sleep(0.05)
    return False


def _answer(stream: socket.socket, request: bytes) -> bytes:
    """Raises OSError, also if the connection is closed before the answer's end."""
    stream.sendall(request)
    answer = b""
    while not is_whole(answer):
        part = stream.recv(1 << 16)
        if not part:
            raise ConnectionError(f"closed after {answer!r}")
        answer += part
    return answer


@contextlib.contextmanager
def _stopped(processes: Sequence[int]) -> Iterator[None]:
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return int(stream.getsockname()[1])


def _listening_socket(port: int) -> str:
    """The listening socket as /proc lists it among a process's files; "" if there is none."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and int(local.partition(":")[2], 16) == port:
            return f"socket:[{inode}]"
    return ""


def _files_of(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed while we look
                found.add(str(link.readlink()))
    return found


def _children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def _tree_of(pid: int) -> list[int]:
    return [pid, *(below for child in _children_of(pid) for below in _tree_of(child))]


def _cpu_of(pid: int) -> float:
    with contextlib.suppress(OSError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS
    return 0.0
