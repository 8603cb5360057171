"""Clients that keep a server busy with transfers and record the answers."""

import threading
import time
from itertools import count

from tests.conftest import Person
from tests.production.gunicorn_server import Server
from tests.production.real_service import LOST, Caller
from tests.waiting import wait_until


class Load:
    """Clients that transfer on kept connections until `over`, or until the server refuses connections."""

    def __init__(
        self, server: Server, ada: Person, accounts: tuple[str, str], clients: int = 6, name: str = "load"
    ) -> None:
        self.name, self.over = name, False
        self.acknowledged: dict[str, str] = {}
        self.refused: list[str] = []
        self.longest = 0.0  # wait for an answer, in seconds; a test may set it back
        self._server, self._ada, self._accounts = server, ada, accounts
        self._threads = [threading.Thread(target=self._transfer, args=[number]) for number in range(clients)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.acknowledged) > 2 * clients)

    def body(self, memo: str) -> dict[str, object]:
        return {"fromAccountId": self._accounts[0], "toAccountId": self._accounts[1], "amount": 1, "memo": memo}

    def _transfer(self, client: int) -> None:
        with Caller(self._server.address) as caller:
            for number in count():
                memo, began = f"{self.name}-{client}.{number}", time.monotonic()
                try:
                    reply = caller.call("POST", "/transfers", self._ada, self.body(memo), memo)
                except ConnectionRefusedError:
                    return
                except LOST:
                    caller.http.close()  # the next call opens another
                    continue
                self.longest = max(self.longest, time.monotonic() - began)
                if reply.status == 201:
                    self.acknowledged[memo] = reply.data["id"]
                else:
                    assert reply.status == 503, reply
                    self.refused.append(memo)
                if self.over:
                    return

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
