"""POST to a URL that is not under our control, without letting it reach our own network (SSRF).

The host name is resolved once, its addresses are checked, and the connection goes to one that passed. So a name that
resolves to another address the next time (DNS rebinding) gains nothing. The Host header and the name that TLS verifies
stay the URL's. Two kinds of addresses pass: public unicast addresses, for `https` only, and those in `allowed` except
the metadata servers of cloud providers. All others are refused: loopback, private, link-local, multicast, reserved, and
IPv6 addresses that stand for an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP). No redirect is followed, no proxy
is used, and only the head of the response is read.

One deadline covers everything: a timer shuts the connection down, even if single bytes keep arriving. Only the
system's resolver has time-outs of its own; nothing is sent if it returns after the deadline.
"""

import contextlib
import functools
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from backend.settings import Networks

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# What `is_global` lets pass in some or all versions of Python, though no public host has such an address: protocol
# assignments, AS112, multicast tunnels, relays of 6to4, documentation.
NOT_HOSTS = Networks(
    "192.0.0.0/24, 192.31.196.0/24, 192.52.193.0/24, 192.88.99.0/24, 192.175.48.0/24, "
    "2001::/23, 2620:4f:8000::/48, 3fff::/20"
)
# They give the machine's credentials to every client that reaches them, and lie in networks that may be allowed for
# other reasons: AWS, Google, OpenStack and others; ECS; EKS; Scaleway; Azure; Alibaba; Oracle.
METADATA_SERVERS = Networks(
    "169.254.169.254, fd00:ec2::254, fd20:ce::254, 169.254.170.2, 169.254.170.23, fd00:ec2::23, "
    "169.254.42.42, fd00:42::42, 168.63.129.16, 100.100.100.200, 192.0.0.192"
)
ISATAP = 0x5EFE  # RFC 5214: before the IPv4 address in the last half of an IPv6 one; two bits may be set

Resolve = Callable[..., list[Any]]  # as socket.getaddrinfo


class AddressRefused(OSError):
    """The host name has no address that this URL may lead to."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], allowed: Networks, seconds: float,
    resolve: Resolve = socket.getaddrinfo,
) -> int:  # fmt: skip
    """Return the status of the response. Raises OSError or http.client.HTTPException if none came in time."""
    end = time.monotonic() + seconds
    parts = urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, parts.port)  # makes the Host header; it never connects by itself
    stream = _connected(resolve(host, connection.port, type=socket.SOCK_STREAM), secure, allowed, end)
    if secure:
        stream = tls_context().wrap_socket(stream, server_hostname=host, do_handshake_on_connect=False)
    with contextlib.closing(stream), _shut_at(end, stream):
        if isinstance(stream, ssl.SSLSocket):
            stream.do_handshake()
        connection.sock = stream
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, dict(headers))
        with contextlib.closing(connection.getresponse()) as answer:
            _left(end)  # a head that the timer cut off looks complete
            return answer.status


def is_public(address: str) -> bool:
    """Whether this is the plain address of one host on the public internet."""
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip.is_multicast or address in NOT_HOSTS or address in METADATA_SERVERS:
        return False
    if ip.version == 4:
        return True
    return ip in GLOBAL_UNICAST and ip.sixtofour is None and int(ip) >> 32 & 0xFCFF_FFFF != ISATAP


def _connected(found: list[Any], secure: bool, allowed: Networks, end: float) -> socket.socket:
    """Connect to the first address that may be connected to and accepts."""
    problem: OSError = AddressRefused("no address that may be connected to")
    for family, kind, protocol, _, address in found:
        if not (secure and is_public(address[0])) and (address[0] not in allowed or address[0] in METADATA_SERVERS):
            continue
        stream = socket.socket(family, kind, protocol)
        try:
            stream.settimeout(_left(end))
            stream.connect(address)
            return stream
        except OSError as error:
            stream.close()
            problem = error
    raise problem


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextlib.contextmanager
def _shut_at(end: float, stream: socket.socket) -> Iterator[None]:
    def shut() -> None:
        with contextlib.suppress(OSError):
            # SSLSocket's own shutdown would drop the TLS state that the reading thread uses.
            socket.socket.shutdown(stream, socket.SHUT_RDWR)

    timer = threading.Timer(_left(end), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The certificates that this machine trusts, read once: that takes tens of milliseconds."""
    return ssl.create_default_context()
