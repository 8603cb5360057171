"""Clients that read and transfer through nginx until they are told to stop, and note every request that fails."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator

from tests.conftest import Person
from tests.operations.real_nginx import SECONDS, Nginx
from tests.waiting import wait_until

CLIENTS = 4  # a worker lets half of its 8 threads wait to write, and answers 503 to a fifth writer


@contextlib.contextmanager
def nothing_lost(nginx: Nginx, person: Person, accounts: list[str]) -> Iterator["HttpsLoad"]:
    """Clients read and transfer while the block runs. Afterwards: no request failed, and each was done once."""
    with HttpsLoad(nginx, person, accounts) as load:
        load.wait_for_more()
        yield load
        load.wait_for_more()
    assert not load.failed, load.failed
    assert nginx.call("GET", f"/accounts/{accounts[1]}", person).data["balance"] == load.transferred


class HttpsLoad:
    """Each client keeps its connection, and takes turns between GET and POST. No request is sent twice."""

    def __init__(self, nginx: Nginx, person: Person, accounts: list[str]) -> None:
        self.transferred = 0
        self.failed: list[str] = []
        self._nginx, self._accounts, self._over = nginx, accounts, False
        self._headers = person.headers | {"Content-Type": "application/json"}
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_until_over) for _ in range(CLIENTS)]

    def wait_for_more(self) -> None:
        """Wait until each client has had several more answers."""
        before = self.transferred
        wait_until(lambda: self.transferred > before + 5 * CLIENTS or bool(self.failed), SECONDS)

    def __enter__(self) -> "HttpsLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()

    def _ask_until_over(self) -> None:
        source, target = self._accounts
        body = json.dumps({"fromAccountId": source, "toAccountId": target, "amount": 1})
        with contextlib.closing(self._nginx.open()) as connection:
            while not self._over:
                self._ask(connection, 200, "GET", f"/api/v1/accounts/{source}", None)
                made = self._ask(connection, 201, "POST", "/api/v1/transfers", body)
                with self._counting:
                    self.transferred += made

    def _ask(
        self, connection: http.client.HTTPConnection, expected: int, method: str, path: str, body: str | None
    ) -> bool:
        try:
            connection.request(method, path, body, self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # the next request opens another
            self.failed.append(f"{method}: {error!r}")
            return False
        if answer.status != expected:
            self.failed.append(f"{method}: {answer.status} {content!r}")
        return answer.status == expected
