"""Clients that send requests until they are stopped, and count those that get no answer."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.production.gunicorn_server import GET
from tests.production.raw_client import Client, connect

SECONDS = 60  # that a client waits for an answer; the next server may have to start before that
PAUSE = 0.03  # seconds: before the first request of a connection, and between two
IN_TIME = 0.5  # seconds after the previous request: a worker that stops closes a connection that is idle for a second


class SteadyClients:
    """Clients, each with a thread of its own. `lost` has a line for each request that got no answer.

    A client that keeps its connection opens another only when an answer says so. `refused` counts the connections
    that could not be opened. A request that a busy machine sends later than IN_TIME may be lost.
    """

    def __init__(self, address: Any, count: int, keep: bool, path: bytes = b"") -> None:
        self.answered = self.refused = 0
        self.lost: list[str] = []
        self.statuses: set[int] = set()  # of the answers
        self._address, self._keep, self._over = address, keep, False
        self._path = path or (b"/short" if keep else b"/")
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_until_over) for _ in range(count)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over = True
            for thread in self._threads:
                thread.join()

    def _ask_until_over(self) -> None:
        while not self._over:
            opened = time.monotonic()
            try:
                client = connect(self._address)
            except OSError:
                with self._counting:
                    self.refused += 1
                time.sleep(PAUSE)
                continue
            with client:
                self._ask_repeatedly(client, opened)

    def _ask_repeatedly(self, client: Client, opened: float) -> None:
        """Ask until the server closes the connection or the test ends."""
        client.stream.settimeout(SECONDS)
        asked, keep = opened, True
        while keep and not self._over:
            time.sleep(PAUSE)
            before, asked = asked, time.monotonic()
            sent = math.inf
            try:
                client.send(GET % self._path)
                sent = time.monotonic()
                answer = client.read_answer()
            except (OSError, EOFError) as error:
                if min(sent, time.monotonic()) - before < IN_TIME:
                    self.lost.append(f"{error!r}, {time.monotonic() - opened:.2f} s after the connection was opened")
                return
            with self._counting:
                self.answered += 1
                self.statuses.add(answer.status)
            keep = self._keep and answer.headers["connection"] != "close"
