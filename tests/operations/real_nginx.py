"""A real nginx with the deployed configuration on free ports of this machine, and requests to it."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Person
from tests.production.gunicorn_server import ROOT
from tests.production.real_service import Reply
from tests.waiting import wait_until

CONFIGURATION = ROOT / "backend/operations/deploy/nginx.conf"
MAIN = """
daemon off;
{user}
error_log stderr;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {gzip}
    include {folder}/site.conf;
}}
"""
DEBIANS_GZIP = "gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 1;"
AS_ROOT = "user root;"  # else its workers could not enter the folders of this test
SECONDS = 60  # that a client waits


class Nginx(NamedTuple):
    plain: int  # ports
    local: int
    public: int
    certificate: Path

    def open(self, source: str = "127.0.0.1") -> http.client.HTTPSConnection:
        """A client's connection over TLS."""
        trust = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection(
            "localhost", self.public, timeout=SECONDS, context=trust, source_address=(source, 0)
        )

    def call(
        self, method: str, path: str, by: Person | None = None, json_: Any = None, source: str = "127.0.0.1",
        **headers: str,
    ) -> Reply:  # fmt: skip
        """The answer to one request on a connection of its own; the path is below `/api/v1` or `//`."""
        sent = {**(by.headers if by else {}), **{name.replace("_", "-"): value for name, value in headers.items()}}
        body = None if json_ is None else json.dumps(json_)
        if body:
            sent["Content-Type"] = "application/json"
        with contextlib.closing(self.open(source)) as connection:
            connection.request(method, path[1:] if path.startswith("//") else f"/api/v1{path}", body, sent)
            return read_reply(connection)


def read_reply(connection: http.client.HTTPConnection) -> Reply:
    answer = connection.getresponse()
    body = answer.read()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, headers, json.loads(body) if body else None)


@contextlib.contextmanager
def nginx(folder: Path, upstream: str, certificate: Path, key: Path) -> Iterator[Nginx]:
    """nginx before the server at `upstream`, a `HOST:PORT` or `unix:PATH`. Skips the test where nginx is missing.

    The ports are bound here and handed over, as nginx does when it replaces its own binary: no other program can take
    them in between.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=511)) for _ in range(3)]
        plain, local, public = (listener.getsockname()[1] for listener in listeners)
        site = CONFIGURATION.read_text(encoding="utf-8")
        for pattern, text in {
            r" +listen \[::\].*\n": "", r"listen 80;": f"listen 127.0.0.1:{plain};",
            r"127\.0\.0\.1:9180": f"127.0.0.1:{local}", r"listen 443 ": f"listen 127.0.0.1:{public} ",
            r"unix:/run/reference-backend\.sock": upstream, r"/etc/ssl/certs/.*\.pem": str(certificate),
            r"/etc/ssl/private/.*\.key": str(key),
        }.items():  # fmt: skip
            site, count = re.subn(pattern, text, site)
            assert count, pattern
        (folder / "site.conf").write_text(site, encoding="utf-8")
        (folder / "nginx.conf").write_text(
            MAIN.format(folder=folder, gzip=DEBIANS_GZIP, user="" if os.geteuid() else AS_ROOT)
        )
        numbers = [listener.fileno() for listener in listeners]
        log = folder / "log"
        process = subprocess.Popen(
            [program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"],
            env=os.environ | {"NGINX": "".join(f"{number};" for number in numbers)},
            pass_fds=numbers,
            stderr=stack.enter_context(log.open("wb")),
        )
        try:
            wait_until(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Nginx(plain, local, public, certificate)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
