"""A mail server on loopback with the part of SMTP that a client needs; it keeps what it gets."""

import base64
import contextlib
import ssl
import threading
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer


class MailServer(ThreadingTCPServer):
    """`mails` has the messages; `log` the commands (`TLS` where encryption began). `refuse`: a verb for 451."""

    daemon_threads, block_on_close, allow_reuse_address = True, False, True

    def __init__(self, tls: ssl.SSLContext | None, implicit: bool) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.tls, self.implicit = tls, implicit
        self.mails: list[str] = []
        self.log: list[str] = []
        self.refuse = ""

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients hang up on purpose."""


class Conversation(StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.encrypted = False
        if self.server.implicit:
            self.encrypt()
        self.say("220 ready")
        while line := self.rfile.readline():  # which is another one once it is encrypted
            said = line.decode().strip()
            self.server.log.append(said)
            verb = said.split()[0].upper()
            if verb == self.server.refuse:
                self.say("451 not now")
            else:
                getattr(self, f"on_{verb.lower()}", lambda _: self.say("250 ok"))(said)

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def on_ehlo(self, _: str) -> None:
        offers = ["250-mail.example", "250-AUTH PLAIN"]
        if self.server.tls and not self.encrypted:
            offers.append("250-STARTTLS")
        self.say(*offers, "250 8BITMIME")

    def on_starttls(self, _: str) -> None:
        self.say("220 go on")
        self.encrypt()

    def on_auth(self, said: str) -> None:
        self.server.log.append(base64.b64decode(said.split()[2]).decode())
        self.say("235 welcome")

    def on_data(self, _: str) -> None:
        self.say("354 go on")
        lines = iter(self.rfile.readline, b".\r\n")
        self.server.mails.append(b"".join(lines).decode().replace("\r\n", "\n"))
        self.say("250 taken")

    def on_quit(self, _: str) -> None:
        self.say("221 bye")

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def encrypt(self) -> None:
        assert self.server.tls
        self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.encrypted = True
        self.server.log.append("TLS")


@contextlib.contextmanager
def mail_server(tls: ssl.SSLContext | None = None, implicit: bool = False) -> Iterator[MailServer]:
    """A running one on 127.0.0.1; with `tls` it offers STARTTLS, or `implicit` begins with TLS."""
    with MailServer(tls, implicit) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
