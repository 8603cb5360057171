"""The client's address: the socket's peer, or the address that trusted proxies name."""

import pytest

from backend.domain import network_of
from backend.settings import Networks
from backend.web.client_address import client_address

PROXY = "10.0.0.1"  # within the trusted network of most tests
CLIENT = "203.0.113.7"


@pytest.mark.parametrize("peer", [PROXY, CLIENT, "127.0.0.1", "2001:db8::1", ""])
@pytest.mark.parametrize("forwarded", ["", "1.2.3.4", "1.2.3.4, 5.6.7.8", "127.0.0.1", "garbage"])
def test_without_trusted_proxies_the_header_is_ignored(peer, forwarded):
    assert client_address(peer, forwarded, Networks()) == peer


@pytest.mark.parametrize("peer", [CLIENT, "11.0.0.1", "9.255.255.255", "::1", ""])
def test_the_header_of_a_peer_outside_the_trusted_networks_is_ignored(peer):
    assert client_address(peer, "1.2.3.4", Networks("10.0.0.0/8")) == peer


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("203.0.113.7", CLIENT),
        (" 203.0.113.7\t", CLIENT),
        ("1.2.3.4, 203.0.113.7", CLIENT),  # the client itself wrote the left item
        ("10.9.9.9, 203.0.113.7", CLIENT),
        ("203.0.113.7,10.0.0.2,10.0.0.3", CLIENT),
        ("203.0.113.7, 203.0.113.8, 10.0.0.2", "203.0.113.8"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("1.2.3.4, garbage, 10.0.0.2", "10.0.0.2"),
    ],
)
def test_each_trusted_proxy_leads_one_step_to_the_left(forwarded, expected):
    assert client_address(PROXY, forwarded, Networks("10.0.0.0/8")) == expected


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [(7, CLIENT), (8, "10.0.1.1"), (9, "10.0.1.2"), (100, "10.0.1.93"), (5_000, "10.0.1.4993")],
)
def test_at_most_eight_steps_are_taken(proxies, expected):
    """The eighth address from the right is the last that is looked at."""
    chain = [CLIENT, *(f"10.0.{n // 250 + 1}.{n % 250 + 1}" for n in range(proxies))]
    expected = chain[-8] if proxies >= 8 else expected
    assert client_address(PROXY, ", ".join(chain), Networks("10.0.0.0/8")) == expected


@pytest.mark.parametrize(
    ("item", "address"),
    [
        ("203.0.113.7:4711", CLIENT),
        ("203.0.113.7:0", CLIENT),
        ("203.0.113.7:65535", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:0DB8:0:0::0001", "2001:db8::1"),
        ("::ffff:203.0.113.7", CLIENT),
        ("[::ffff:203.0.113.7]:80", CLIENT),
        ("::FFFF:cb00:7107", CLIENT),
    ],
)
def test_a_port_and_brackets_are_taken_off(item, address):
    """An address has one canonical spelling."""
    assert client_address(PROXY, item, Networks(PROXY)) == address


@pytest.mark.parametrize(
    "item",
    ["", " ", "unknown", "_hidden", "localhost", "203.0.113", "203.0.113.256", "203.0.113.007", "0x7f.1",
     "3405803783", "203.0.113.7/32", "203.0.113.7:", "203.0.113.7:x", "203.0.113.7:999999", "203.0.113.7:-1",
     "203.0.113.7:٤", "203.0.113.7 8.8.8.8", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]x", "[2001:db8::1]:", "[]",
     "[2001:db8::1]80",
     "[", ":", "::1::", "fe80::1%eth0", "[fe80::1%25eth0]", "[fe80::1%eth0]:80", "2001:db8::1%", "for=203.0.113.7",
     '"203.0.113.7"', "\0", f"203.0.113.7{' ' * 60}x", f"203.0.113.7{'0' * 8000}", f"[2001:db8::1]:{'0' * 60}"],
)  # fmt: skip
def test_what_is_no_address_ends_the_stepping(item):
    """So does a zone id or an empty item; what stands to its left is ignored."""
    assert client_address(PROXY, f"{CLIENT}, {item}", Networks("10.0.0.0/8")) == PROXY
    assert client_address(PROXY, f"{CLIENT}, {item}, 10.0.0.2", Networks("10.0.0.0/8")) == "10.0.0.2"


def test_an_ipv4_peer_may_come_as_ipv6():
    """A socket that serves both shows it so."""
    assert client_address(f"::ffff:{PROXY}", CLIENT, Networks(PROXY)) == CLIENT
    assert client_address(f"::ffff:{PROXY}", "", Networks()) == PROXY


def test_the_peer_of_a_unix_socket_is_trusted_only_as_unix():
    """Such a peer has no address."""
    assert client_address("", CLIENT, Networks("unix")) == CLIENT
    assert client_address("", f"{CLIENT}, 10.0.0.1", Networks("unix, 10.0.0.0/8")) == CLIENT
    assert client_address("", CLIENT, Networks("0.0.0.0/0, ::/0")) == ""
    assert client_address("", "", Networks("unix")) == ""
    assert client_address(PROXY, CLIENT, Networks("unix")) == PROXY


def test_a_link_local_peer_is_not_taken_for_a_unix_socket():
    """Its zone is dropped: it is the name of an interface of this machine."""
    assert client_address("fe80::1%eth0", CLIENT, Networks("unix")) == "fe80::1"
    assert client_address("fe80::1%eth0", CLIENT, Networks("fe80::/10")) == CLIENT


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (CLIENT, CLIENT),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_ipv6_client_is_counted_by_its_64(address, key):
    assert network_of(address) == key


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("198.51.100.9", "1.2.3.4", "", "198.51.100.9"),
        ("198.51.100.9", "1.2.3.4", "198.51.100.0/24", "1.2.3.4"),
        ("::ffff:198.51.100.9", "9.9.9.9, [2001:db8::5]:80", "198.51.100.9", "2001:db8::5"),
        ("", "1.2.3.4", "unix", "1.2.3.4"),
    ],
)
def test_a_login_remembers_the_clients_address(make_api, peer, forwarded, trusted, expected):
    """The address goes through a whole request."""
    api = make_api(trusted_proxies=Networks(trusted))
    ada = api.sign_up("Ada")
    sent = {"email": ada.email, "password": "correct horse battery staple"}
    api.post("/auth/login", json=sent, address=peer, headers={"X-Forwarded-For": forwarded})
    assert api.get("/auth/sessions", ada).json["data"][0]["ip"] == expected


def test_other_forwarding_headers_are_ignored(make_api):
    """No path, scheme or host is taken from a header: links are relative, and one header alone names addresses."""
    api = make_api(trusted_proxies=Networks("127.0.0.1"))
    ada = api.sign_up("Ada")
    headers = {
        "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "True-Client-IP": "6.6.6.6", "Host": "evil.example",
    }  # fmt: skip
    rest = {"headers": headers, "address": "127.0.0.1"}
    made = [api.post("/accounts", ada, {"currency": "EUR"}, **rest) for _ in range(2)]
    assert made[1].headers["Location"] == f"/api/v1/accounts/{made[1].json['data']['id']}"
    assert api.get("/accounts?limit=1", ada, **rest).headers["Link"].startswith("</api/v1/accounts?")
    api.post("/auth/login", json={"email": ada.email, "password": "correct horse battery staple"}, **rest)
    assert api.get("/auth/sessions", ada).json["data"][0]["ip"] == "127.0.0.1"
