"""The client's address: the socket's peer, or the address that trusted proxies name in `X-Forwarded-For`."""

import ipaddress
import re

from backend.settings import Networks

MAX_STEPS = 8
MAX_ITEM = 64  # characters; more than any address with a port has, so an item that is cut here is no address
HOST_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([^:]*):[0-9]{1,5}")  # [HOST], [HOST]:PORT or HOST:PORT


def client_address(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The client's address in canonical form; `""` for a unix socket's peer that names no client.

    Starts at the peer. While the address is a trusted proxy's, it steps one item to the left in `X-Forwarded-For`, at
    most 8 times, and stops at an item that is no address. So a client that sends the header itself gains nothing.
    """
    # The kernel writes an IPv4 peer in canonical form. The zone of an IPv6 peer names an interface of this machine.
    address = (_canonical(peer.partition("%")[0]) or "") if ":" in peer else peer
    if not forwarded_for or address not in trusted:
        return address
    for item in reversed(forwarded_for.rsplit(",", MAX_STEPS)[-MAX_STEPS:]):
        if address not in trusted:
            break
        step = _canonical(_without_port(item.strip()[:MAX_ITEM]))
        if step is None:
            break
        address = step
    return address


def _without_port(text: str) -> str:
    match = HOST_PORT.fullmatch(text)
    return (match[1] or match[2] or "") if match else text


def _canonical(text: str) -> str | None:
    """One spelling of an address; `::ffff:a.b.c.d` is a.b.c.d. None if it is no address or has a zone id."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    return str(getattr(ip, "ipv4_mapped", None) or ip)
