"""POST to URLs that are not under our control: refused addresses, and the deadline for everything."""

import http.client
import ipaddress
import socket
import ssl
import threading

import pytest

from backend.delivery import outbound_post
from backend.delivery.outbound_post import AddressRefused, is_public, post
from backend.settings import Networks
from tests.webhook_receiver import receiving

LOOPBACK = Networks("127.0.0.0/8")
TCP = (socket.AF_INET, socket.SOCK_STREAM, 6, "")


@pytest.fixture
def receiver():
    with receiving() as (made, made.port):
        made.url = f"http://127.0.0.1:{made.port}/"
        yield made


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1", "2001:200::1"]
)
def test_public_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "100.64.0.1", "169.254.169.254", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "192.88.99.1", "168.63.129.16", "100.100.100.200",
        "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:1::1", "2001:20::1", "2001:1ff::1", "2001:db8::1", "3fff::1", "3fff:fff::1", "fd20:ce::254",
        "2002:7f00:1::", "2002:808:808::", "fc00::1", "fd00:ec2::254", "fe80::1",
        "fe80::1%1", "fec0::1", "ff02::1", "4000::1",
    ],
)  # fmt: skip
def test_all_other_addresses_are_not_public(address):
    assert not is_public(address)


# The IANA registries of special-purpose addresses (RFC 6890), also those that are globally reachable: each serves a
# protocol, and none is a host's own.
SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 240.0.0.0/4 255.255.255.255/32
    ::/128 ::1/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23
    2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10
""".split()


@pytest.mark.parametrize("block", SPECIAL)
def test_no_address_of_a_special_purpose_is_public(block):
    network = ipaddress.ip_network(block)
    ends = network[0], network[network.num_addresses // 2], network[-1]
    assert [is_public(str(address)) for address in ends] == [False] * 3


@pytest.mark.parametrize("interface", ["0:5efe:7f00:1", "200:5efe:808:808", "0:5efe:127.0.0.1"])
def test_an_address_that_stands_for_an_ipv4_one_is_not_public(interface):
    """ISATAP, under any prefix."""
    assert not is_public(f"2607:f8b0:0:0:{interface}")
    assert is_public(f"2607:f8b0:0:0:{interface.replace('5efe', '5eff')}")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254",
        "fd20:ce::254", "::ffff:169.254.169.254",
    ],
)  # fmt: skip
def test_a_metadata_server_is_refused_within_an_allowed_network_too(address):
    """It would return the credentials of the machine."""
    allowed = Networks("0.0.0.0/0, ::/0")

    def resolve(host, port, **_):
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with pytest.raises(AddressRefused):
        post("http://hooks.example/", b"", {}, allowed, 5, resolve)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "0177.0.0.1",
        "0",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_refused_however_it_is_written(receiver, host, scheme):
    """Nothing arrives there."""
    with pytest.raises((AddressRefused, socket.gaierror)):
        post(f"{scheme}://{host}:{receiver.port}/", b"", {}, Networks(), 5)
    assert receiver.arrivals == []


def test_nothing_goes_to_a_public_address_unencrypted(receiver, monkeypatch):
    monkeypatch.setattr(outbound_post, "is_public", lambda address: True)
    with pytest.raises(AddressRefused):
        post(receiver.url, b"", {}, Networks(), 5)
    assert receiver.arrivals == []


@pytest.mark.parametrize("networks", ["127.0.0.0/8", "10.0.0.0/8,127.0.0.1"])
def test_allowed_networks_are_allowed(receiver, networks):
    assert post(receiver.url, b"hello", {"X-Mine": "1"}, Networks(networks), 30) == 204
    (arrival,) = receiver.arrivals
    assert (arrival.body, arrival.headers["x-mine"]) == (b"hello", "1")


def test_the_connection_goes_to_the_address_that_was_checked(receiver):
    """The name is resolved once, so another answer has no effect; Host is the name of the URL."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(*TCP, ("10.1.2.3", port)), (*TCP, ("127.0.0.1", port))]

    assert post(f"http://hooks.example:{receiver.port}/x?y=1", b"", {}, LOOPBACK, 30, resolve) == 204
    (arrival,) = receiver.arrivals
    assert (asked, arrival.path) == (["hooks.example"], "/x?y=1")
    assert arrival.headers["host"] == f"hooks.example:{receiver.port}"


def test_after_an_address_that_does_not_answer_the_next_is_tried(receiver):
    def resolve(host, port, **_):
        return [(*TCP, ("127.0.0.1", 1)), (*TCP, ("127.0.0.1", port))]

    assert post(f"http://hooks.example:{receiver.port}", b"", {}, LOOPBACK, 30, resolve) == 204
    assert receiver.arrivals[0].path == "/"


def test_a_name_without_addresses_is_refused():
    with pytest.raises(AddressRefused):
        post("http://hooks.example/", b"", {}, LOOPBACK, 30, lambda *_, **__: [])


def test_a_receiver_that_never_answers_is_given_up_at_the_deadline(receiver):
    waiting = threading.Event()
    receiver.answer = lambda *_: waiting.wait(30) and None
    with pytest.raises((OSError, http.client.HTTPException)):
        post(receiver.url, b"", {}, LOOPBACK, 0.2)
    waiting.set()


def test_a_receiver_that_sends_single_bytes_is_given_up_at_the_deadline(receiver):
    """Each byte arrives in time, the whole response never."""
    ended = threading.Event()

    def drip(arrival, stream):
        try:
            stream.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.02):
                stream.write(b"x")
                stream.flush()
        except ConnectionError:
            ended.set()

    receiver.answer, seconds = drip, 0.3
    while not receiver.arrivals:  # a busy machine may take longer than that to connect
        with pytest.raises((OSError, http.client.HTTPException)):
            post(receiver.url, b"", {}, LOOPBACK, seconds)
        seconds *= 2
    assert ended.wait(30)


def test_an_endless_answer_is_not_read(receiver):
    def pour(arrival, stream):
        stream.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            stream.write(b"x" * 65536)

    receiver.answer = pour
    assert post(receiver.url, b"", {}, LOOPBACK, 30) == 200


def test_nothing_is_sent_when_the_resolver_took_all_the_time(receiver):
    def resolve(host, port, **_):
        threading.Event().wait(0.2)
        return [(*TCP, ("127.0.0.1", port))]

    with pytest.raises(TimeoutError):
        post(receiver.url, b"", {}, LOOPBACK, 0.1, resolve)
    assert receiver.arrivals == []


def test_tls_verifies_the_name_of_the_url(certificate_of):
    """Not the resolved address. A server with another name gets nothing."""
    outbound_post.tls_context.cache_clear()
    with receiving(certificate_of("DNS:hooks.example")) as (receiver, port):

        def resolve(host, port, **_):
            return [(*TCP, ("127.0.0.1", port))]

        assert post(f"https://hooks.example:{port}/", b"hello", {}, LOOPBACK, 30, resolve) == 204
        for url in (f"https://other.example:{port}/", f"https://127.0.0.1:{port}/"):
            with pytest.raises(ssl.SSLCertVerificationError):
                post(url, b"", {}, LOOPBACK, 30, resolve)
        assert [arrival.body for arrival in receiver.arrivals] == [b"hello"]
    outbound_post.tls_context.cache_clear()


def test_a_tls_handshake_that_stalls_is_given_up_at_the_deadline(receiver):
    """The server takes the client's hello and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError):
        post(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"", {}, LOOPBACK, 0.2)
