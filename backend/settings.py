"""Settings: one frozen dataclass read from the environment. A bad value stops the start, by name."""

import base64
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

MAX_LINK = 800  # characters: a line of a mail may have 998, and the token becomes part of it
ADDRESS = re.compile(r"[\w!#$%&'*+/^`{|}~-]+(\.[\w!#$%&'*+/^`{|}~-]+)*@[a-z0-9-]+(\.[a-z0-9-]+)*", re.ASCII | re.I)
ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")  # as browsers write it

LISTEN_ADDRESS = re.compile(r"unix:[^,]+|fd://[0-9]{1,4}|(?:\[([0-9A-Fa-f:.]+)\]|([^\s,:/\[\]]+)):([0-9]{1,5})")


class SettingsError(Exception):
    """A variable cannot be read. The message is one line: its name, what it was, what it may be."""


class Networks:
    """A set of IP networks, and perhaps the peers of unix sockets (written `unix`)."""

    def __init__(self, text: str = "") -> None:
        names = [name.strip() for name in text.split(",") if name.strip()]
        self.unix = "unix" in names
        self._networks = [ipaddress.ip_network(name, strict=False) for name in names if name != "unix"]

    def __contains__(self, address: str) -> bool:
        """True if the address lies in a network; `""` is the peer of a unix socket; anything unreadable is outside."""
        if not address:
            return self.unix
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in self._networks)


@dataclass(frozen=True)
class Limit:
    """`quota` requests in `window` seconds."""

    quota: int
    window: float


@dataclass(frozen=True)
class Settings:
    database_path: Path = Path("var/app.db")
    jwt_secrets: tuple[str, ...] = field(default=(), repr=False)  # empty: generated beside the database
    access_token_seconds: int = 900
    refresh_token_seconds: int = 604_800
    refresh_grace_seconds: int = 10
    bcrypt_rounds: int = 12
    rate_limit_default: Limit | None = Limit(300, 60)
    rate_limit_auth: Limit | None = Limit(10, 60)
    trusted_proxies: Networks = field(default_factory=Networks)
    cors_origins: frozenset[str] = frozenset()
    development: bool = False  # not a variable: `python app.py serve` sets it
    log_level: str = "INFO"
    cache_size: int = 10_000
    cache_ttl_seconds: float = 60.0
    smtp_url: str | None = field(default=None, repr=False)
    mail_from: str | None = None  # None: no-reply@ the mail server's host
    password_reset_url: str | None = None  # with {token} in it; None: mails hold the bare token
    webhook_urls: tuple[str, ...] = field(default=(), repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_allow_networks: Networks = field(default_factory=Networks)
    request_timeout_seconds: float = 10.0
    busy_timeout_seconds: float = 5.0
    workers: int = 2
    threads: int = 8  # of each worker
    bind: tuple[str, ...] = ("127.0.0.1:8000",)  # as gunicorn writes addresses

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Every variable of the table below that is set and not blank; raises SettingsError for the first bad one."""
        values: dict[str, object] = {}
        for name, (attribute, parse, meaning) in VARIABLES.items():
            text = environment.get(name, "").strip()
            try:
                if text:
                    values[attribute] = parse(text)
            except ValueError:
                secret = name in SECRET or "@" in text  # an address with a password in it
                shown = f"{len(text)} characters, not shown" if secret else repr(text)
                raise SettingsError(f"{name} was {shown}; it must be {meaning}") from None
        if "webhook_urls" in values and "webhook_secret" not in values:
            raise SettingsError("WEBHOOK_SECRET was empty; with WEBHOOK_URLS it must be a text, or whsec_ and base64")
        return cls(**values)  # type: ignore[arg-type]  # the table pairs each attribute with its parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
            raise ValueError(text)
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if "_" in text or not text.isascii() or not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _sqlite_path(text: str) -> Path:
    prefix, path = text[:10], text[10:]
    if prefix != "sqlite:///" or not path or path.startswith(":") or "?" in path:
        raise ValueError(text)
    return Path(path)


def _secrets(text: str) -> tuple[str, ...]:
    secrets = tuple(text.split(","))
    if any(len(secret.encode()) < 32 for secret in secrets):
        raise ValueError
    return secrets


def _limit(text: str) -> Limit | None:
    if text == "off":
        return None
    quota, _, window = text.partition("/")
    return Limit(_whole(1, 10**6)(quota), _whole(1, 86_400)(window))


def _origins(text: str) -> frozenset[str]:
    origins = frozenset(origin.strip() for origin in text.split(","))
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(text)
    return origins


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        odd = not parts.port if "smtp" in schemes else "@" in parts.netloc or not re.fullmatch("[!-~]+", text)
        if parts.scheme not in schemes or not parts.hostname or odd or parts.port == 0:
            raise ValueError
        return text

    return parse


def _address(text: str) -> str:
    if not ADDRESS.fullmatch(text):
        raise ValueError(text)
    return text


def _reset_url(text: str) -> str:
    if text.count("{token}") != 1 or "{" in urlsplit(text).netloc or len(text) > MAX_LINK:
        raise ValueError(text)
    return _url("http", "https")(text)


def _urls(text: str) -> tuple[str, ...]:
    return tuple(_url("http", "https")(url.strip()) for url in text.split(","))


def _webhook_secret(text: str) -> str:
    if text.startswith("whsec_") and not base64.b64decode(text[6:], validate=True):
        raise ValueError
    return text


def _addresses(text: str) -> tuple[str, ...]:
    """Addresses to listen on. Descriptors and other addresses do not mix: gunicorn would ignore the others."""
    addresses = tuple(address.strip() for address in text.split(","))
    for address in addresses:
        match = LISTEN_ADDRESS.fullmatch(address)
        if not match or int(match[3] or 0) > 65_535:
            raise ValueError(text)
        ipaddress.IPv6Address(match[1] or "::")
        if re.fullmatch("[0-9.]+", match[2] or ""):
            ipaddress.IPv4Address(match[2])
    if len({address.startswith("fd://") for address in addresses}) > 1:
        raise ValueError(text)
    return addresses


def _one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    def parse(text: str) -> T:
        if text not in choices:
            raise ValueError(text)
        return choices[text]

    return parse


LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
SECRET = {"JWT_SECRETS", "SMTP_URL", "WEBHOOK_URLS", "WEBHOOK_SECRET"}  # their values are never shown

# environment variable → attribute, parser, what it may be
VARIABLES: dict[str, tuple[str, Callable[[str], object], str]] = {
    "DATABASE_URL": ("database_path", _sqlite_path, "sqlite:///relative/path or sqlite:////absolute/path"),
    "JWT_SECRETS": ("jwt_secrets", _secrets, "a comma list of secrets of at least 32 bytes each"),
    "ACCESS_TOKEN_SECONDS": ("access_token_seconds", _whole(1, 86_400), "a whole number from 1 to 86400"),
    "REFRESH_TOKEN_SECONDS": ("refresh_token_seconds", _whole(1, 2_592_000), "a whole number from 1 to 2592000"),
    "REFRESH_GRACE_SECONDS": ("refresh_grace_seconds", _whole(0, 300), "a whole number from 0 to 300"),
    "BCRYPT_ROUNDS": ("bcrypt_rounds", _whole(4, 18), "a whole number from 4 to 18"),
    "RATE_LIMIT_DEFAULT": ("rate_limit_default", _limit, "REQUESTS/SECONDS, such as 300/60, or off"),
    "RATE_LIMIT_AUTH": ("rate_limit_auth", _limit, "REQUESTS/SECONDS, such as 10/60, or off"),
    "TRUSTED_PROXIES": ("trusted_proxies", Networks, "a comma list of CIDR networks, and `unix`"),
    "CORS_ORIGINS": ("cors_origins", _origins, "a comma list of origins such as https://example.org"),
    "LOG_LEVEL": ("log_level", _one_of({level: level for level in LEVELS}), " or ".join(LEVELS)),
    "CACHE_SIZE": ("cache_size", _whole(0, 10**7), "a whole number from 0 to 10000000"),
    "CACHE_TTL_SECONDS": ("cache_ttl_seconds", _seconds(0, 86_400), "a number from 0 to 86400"),
    "SMTP_URL": ("smtp_url", _url("smtp", "smtps"), "smtp://[user:password@]host:port or smtps://…"),
    "MAIL_FROM": ("mail_from", _address, "an address such as no-reply@example.org"),
    "PASSWORD_RESET_URL": (
        "password_reset_url",
        _reset_url,
        "http:// or https://…, with {token} once, behind the host",
    ),
    "WEBHOOK_URLS": ("webhook_urls", _urls, "a comma list of http:// or https:// addresses"),
    "WEBHOOK_SECRET": ("webhook_secret", _webhook_secret, "a text, or whsec_ and base64"),
    "WEBHOOK_ALLOW_NETWORKS": ("webhook_allow_networks", Networks, "a comma list of CIDR networks"),
    "REQUEST_TIMEOUT_SECONDS": ("request_timeout_seconds", _seconds(0.1, 300), "a number from 0.1 to 300"),
    "WEB_CONCURRENCY": ("workers", _whole(1, 32), "a whole number from 1 to 32"),
    "THREADS": ("threads", _whole(1, 99), "a whole number from 1 to 99"),
    "BIND": ("bind", _addresses, "HOST:PORT, [IPv6]:PORT or unix:PATH, port at most 65535, or fd://N, or a comma list"),
    "BUSY_TIMEOUT_SECONDS": ("busy_timeout_seconds", _seconds(0.05, 300), "a number from 0.05 to 300"),
}
