"""Who is at the other end: the socket's peer, or what trusted proxies say stands behind it."""

import ipaddress

from backend.settings import Networks

MAX_STEPS = 8
MAX_ITEM = 64  # characters; no address with a port has as many, so one that is cut off here is none


def client_address(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The client's address; `""` for the peer of a unix socket that no proxy speaks for.

    From the peer on, one step left in `X-Forwarded-For` for as long as the present address is a trusted proxy's, at
    most 8, stopping at anything that is no address. So a client that writes the header himself gains nothing.
    """
    address = _plain(peer.partition("%")[0]) or ""  # the zone of a link-local peer is our own interface's name
    if not forwarded_for or address not in trusted:
        return address
    for item in reversed(forwarded_for.rsplit(",", MAX_STEPS)[-MAX_STEPS:]):
        if address not in trusted:
            break
        step = _plain(_without_port(item.strip()[:MAX_ITEM]))
        if step is None:
            break
        address = step
    return address


def _without_port(text: str) -> str:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        return host if bracket and (not port or _is_port(port)) else ""
    host, colon, port = text.partition(":")
    return host if colon and _is_port(f":{port}") else text


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isascii() and text[1:].isdigit() and len(text) <= 6


def _plain(text: str) -> str | None:
    """The canonical text of an address; `::ffff:a.b.c.d` is a.b.c.d; None for what is none or has a zone id."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    return str(getattr(ip, "ipv4_mapped", None) or ip)
