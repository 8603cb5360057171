"""One byte for each thread: four clients that send a `G` and wait stop a server of four threads.

Catalogue: "Use `--worker-class gthread --threads 4`: each request gets a thread."

Goes wrong: The thread reads the request, and a client decides how long that takes. Four clients that send one byte hold
all four threads, without an error, a log line or a CPU that is busy. A phone in a tunnel does that without malice. No
time-out of the worker helps: its main loop is alive and reports so.

Bitten: https://github.com/benoitc/gunicorn/pull/3519, after slow clients had made health checks fail and pods restart.
Since then a client that sends nothing gives its thread back after five seconds. One byte is enough to keep it.

Read: `backend/production/gunicorn_worker.py` and `backend/production/request_reader.py`: the loop reads, and only a
whole request gets a thread. One that is not whole within `REQUEST_TIMEOUT_SECONDS` is answered with 408.

Exercise: Let the four clients send a whole head with `Content-Length: 10` and no body. Then let them ask for the
largest file of `/docs` and not read the answer. Which of the three stops the plain worker, and what does an nginx in
front of it change?
"""

from contextlib import ExitStack

from tests.lessons import Stage, Verdict
from tests.lessons.servers import gthread
from tests.production.gunicorn_server import GET, Server
from tests.production.real_service import service

THREADS, CHECKS = 4, 3
PATIENCE = 0.5  # seconds after which a check of the naive server gives up; it could wait for hours


def naive(stage: Stage) -> list[Verdict]:
    with gthread(stage, "app:create_app()", workers=1, threads=THREADS) as server:
        return [attack(server, THREADS, PATIENCE)]


def ours(stage: Stage) -> list[Verdict]:
    with service(stage.folder / "log", stage.database, WEB_CONCURRENCY="1", THREADS=str(THREADS)) as server:
        return [attack(server, 20 * THREADS, 30)]


def attack(server: Server, crowd: int, patience: float) -> Verdict:
    with ExitStack() as hostile:
        for _ in range(crowd):
            hostile.enter_context(server.connect()).send(b"G")
        meanwhile = sum(is_answered(server, patience) for _ in range(CHECKS))
    afterwards = sum(is_answered(server, 30) for _ in range(CHECKS))
    assert afterwards == CHECKS
    says = f"{crowd} bytes: {meanwhile} of {CHECKS} health checks are answered, {afterwards} once the clients have left"
    return Verdict(meanwhile == CHECKS, CHECKS - meanwhile, says)


def is_answered(server: Server, patience: float) -> bool:
    """Whether a thread of the server answers a health check in time, with whatever status."""
    with server.connect() as check:
        check.send(GET % b"/readyz")
        check.stream.settimeout(patience)
        try:
            check.read_answer()
        except TimeoutError:
            return False
    return True
