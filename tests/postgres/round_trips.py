"""A proxy before PostgreSQL that counts round trips: how often a client speaks after the server has spoken."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from psycopg.conninfo import conninfo_to_dict

SOCKET = ".s.PGSQL.5432"


class RoundTrips:
    """`count` is that of all connections so far."""

    def __init__(self, server: tuple[socket.AddressFamily, object]) -> None:
        self.count = 0
        self._server = server

    def accept(self, listener: socket.socket) -> None:
        """Serve connections until the listener is shut down."""
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=[client], daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        family, address = self._server
        with client, socket.socket(family) as server, selectors.DefaultSelector() as both:
            server.connect(address)
            peers, last = {client: server, server: client}, server
            for one in peers:
                both.register(one, selectors.EVENT_READ)
            while True:
                for key, _ in both.select():
                    one: socket.socket = key.fileobj  # type: ignore[assignment]  # a socket was registered
                    try:
                        data = one.recv(1 << 16)
                        self.count += one is client and last is server and bool(data)
                        last = one
                        peers[one].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return


@contextmanager
def counted(url: str) -> Iterator[tuple[str, RoundTrips]]:
    """A URL of the same database whose connections pass the proxy, and its count."""
    parts = conninfo_to_dict(url)
    host, port = str(parts["host"]), parts.get("port", 5432)
    on_socket = host.startswith("/")
    address = (socket.AF_UNIX, f"{host}/.s.PGSQL.{port}") if on_socket else (socket.AF_INET, (host, int(port)))
    trips = RoundTrips(address)
    with TemporaryDirectory(prefix="pg-") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(folder) / SOCKET))
        listener.listen(50)
        thread = threading.Thread(target=trips.accept, args=[listener])
        thread.start()
        password = f":{parts['password']}" if parts.get("password") else ""
        try:
            yield f"postgresql://{parts.get('user', '')}{password}@/{parts['dbname']}?host={folder}", trips
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
