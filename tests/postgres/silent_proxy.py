"""A TCP proxy before the tests' PostgreSQL server. It can fall silent, as a network or a hanging server does."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict

LONGEST = 60  # seconds of silence: a client that waits for longer gets its answer, and fails its test


class Link:
    """One connection through the proxy: two threads pass bytes on while `passing` is set."""

    def __init__(self, client: socket.socket, server: socket.socket, passing: bool) -> None:
        self.passing = threading.Event()
        if passing:
            self.passing.set()
        self._ends = client, server

    def start(self) -> None:
        for source, target in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pass, args=[source, target], daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passing.wait(LONGEST)
                target.sendall(data)
        self.close()

    def close(self) -> None:
        self.passing.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """`url` leads through the proxy to the server. `connections` counts those that clients have opened."""

    def __init__(self, url: str, listener: socket.socket) -> None:
        self._target = conninfo_to_dict(url)
        name, port = self._target["dbname"], listener.getsockname()[1]
        self.url = f"postgresql://{self._target['user']}@127.0.0.1:{port}/{name}"
        self.connections = 0
        self._links: list[Link] = []
        self._state = threading.Lock()  # guards the links and `_passing`
        self._passing = True
        self._listener = listener

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                with self._state:  # before it passes a byte on, `hang` finds the link
                    link = Link(client, self._server(), self._passing)
                    self._links.append(link)
                link.start()

    def hang(self) -> None:
        """Keep all connections open and pass nothing on, as a server that hangs."""
        with self._state:
            self._passing = False
            for link in self._links:
                link.passing.clear()

    def go_on(self) -> None:
        with self._state:
            self._passing = True
            for link in self._links:
                link.passing.set()

    def forget(self) -> None:
        """Pass nothing on for the present connections, as a firewall that has forgotten them."""
        self.hang()
        self._passing = True

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _server(self) -> socket.socket:
        host, port = str(self._target["host"]), int(self._target["port"] or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(f"{host}/.s.PGSQL.{port}")
        return stream


@contextlib.contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(url, listener)
        thread = threading.Thread(target=proxy.accept)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            proxy.close()
