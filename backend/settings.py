"""Settings: one frozen dataclass, read from environment and credentials. A bad value stops the start and is named."""

import base64
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_LINK = 800  # characters; a line of a mail has 998 at most, token included
MAILBOX = re.compile(r"[\w!#$%&'*+/^`{|}~-]+(\.[\w!#$%&'*+/^`{|}~-]+)*@[a-z0-9-]+(\.[a-z0-9-]+)*", re.ASCII | re.I)
ORIGIN = re.compile(r"(https?)://(?:[a-z0-9.-]+|\[([0-9a-f:.]+)\])(?::([1-9][0-9]{0,4}))?")  # as browsers send it
LISTENER = re.compile(r"unix:[^,]+|fd://[0-9]{1,4}|(?:\[([0-9A-Fa-f:.]+)\]|([^\s,:/\[\]]+)):([0-9]{1,5})")
NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8


class SettingsError(Exception):
    """A variable cannot be parsed or used. The message is one line: its name, its value and what it must be."""


class Networks:
    """A set of IP networks; the entry `unix` adds the peers of unix sockets."""

    def __init__(self, text: str = "") -> None:
        names = _entries(text) if text else []
        self.unix = "unix" in names
        self._networks = [_network(name) for name in names if name != "unix"]

    def __contains__(self, address: str) -> bool:
        """Whether the address is in the set. `""` is the peer of a unix socket; other text is in no set."""
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
    audit_keep_days: int | None = None  # None: for ever
    request_timeout_seconds: float = 10.0
    busy_timeout_seconds: float = 5.0
    workers: int = 2
    threads: int = 8  # of each worker
    bind: tuple[str, ...] = ("127.0.0.1:8000",)  # in gunicorn's syntax
    postgres_url: str | None = field(default=None, repr=False)  # if set, the path's folder holds only this host's files

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read VARIABLES. A variable that is unset or blank leaves its default. Raises SettingsError."""
        values: dict[str, object] = {}
        for name, (attribute, parse, meaning) in VARIABLES.items():
            text = text_of(name, environment)
            try:
                if text:
                    values[attribute] = parse(text)
            except ValueError:
                secret = name in SECRET or "@" in text  # perhaps a URL with a password
                shown = f"{len(text)} characters, not shown" if secret else repr(text)
                raise SettingsError(f"{name} was {shown}; it must be {meaning}") from None
        if isinstance(values.get("database_path"), str):
            values["postgres_url"] = values.pop("database_path")
            # Each thread holds a connection, and after each statement it waits for the interpreter's lock.
            values.setdefault("threads", THREADS_ON_POSTGRES)
        if "webhook_urls" in values and "webhook_secret" not in values:
            raise SettingsError(f"WEBHOOK_SECRET was empty; with WEBHOOK_URLS it must be {WHSEC}")
        return cls(**values)  # type: ignore[arg-type]  # the table pairs each attribute with its parser


def text_of(name: str, environment: Mapping[str, str]) -> str:
    """The variable, or the file of its name in CREDENTIALS_DIRECTORY, stripped; "" if it is unset or blank.

    systemd makes that folder for LoadCredential. Raises SettingsError for a file that cannot be read.
    """
    if text := environment.get(name, "").strip():
        return text
    try:
        return Path(environment["CREDENTIALS_DIRECTORY"], name).read_text(encoding="utf-8").strip()
    except (KeyError, FileNotFoundError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{name} in CREDENTIALS_DIRECTORY cannot be read ({reason})") from None


def jwt_secret(text: str) -> str:
    """The secret in `text`, which is an entry of JWT_SECRETS or the content of the file, stripped.

    Raises ValueError unless it is one line of at least 32 bytes.
    """
    secret = text.strip()
    if NOT_TEXT.search(secret) or len(secret.encode()) < 32:
        raise ValueError
    return secret


def _entries(text: str) -> list[str]:
    """The entries of a comma list, stripped. Raises ValueError for an empty one."""
    entries = [entry.strip() for entry in text.split(",")]
    if "" in entries:
        raise ValueError
    return entries


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network, host bits dropped. An IPv4-mapped network becomes an IPv4 network, as in `Networks.__contains__`."""
    if "%" in text:  # a zone
        raise ValueError
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96)) if mapped else network


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (re.fullmatch("[0-9]{1,20}", text) and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not (re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", text) and low <= float(text) <= high):
            raise ValueError
        return float(text)

    return parse


def _database(text: str) -> Path | str:
    """The path of an SQLite file, or a URL of PostgreSQL, as libpq reads it."""
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        return _sqlite_path(text)
    if not find_spec("psycopg") or NOT_TEXT.search(text):
        raise ValueError
    return text


def _sqlite_path(text: str) -> Path:
    prefix, path = text[:10].lower(), text[10:]
    if prefix != "sqlite:///" or path.startswith(":") or "?" in path or NOT_TEXT.search(path):
        raise ValueError
    if path.rpartition("/")[2] in ("", ".", ".."):  # a folder
        raise ValueError
    return Path(path)


def _secrets(text: str) -> tuple[str, ...]:
    return tuple(jwt_secret(entry) for entry in text.split(","))


def _limit(text: str) -> Limit | None:
    if text == "off":
        return None
    quota, _, window = text.partition("/")
    return Limit(_whole(1, 10**6)(quota), _whole(1, 86_400)(window))


def _origins(text: str) -> frozenset[str]:
    """Refuses a default port: browsers leave it out, so the origin would never match."""
    origins = frozenset(_entries(text))
    for origin in origins:
        match = ORIGIN.fullmatch(origin)
        if not match or (match[1], match[3]) in (("http", "80"), ("https", "443")) or int(match[3] or 0) > 65_535:
            raise ValueError
        ipaddress.IPv6Address(match[2] or "::")
    return origins


def _networks(text: str) -> Networks:
    networks = Networks(text)
    if networks.unix:
        raise ValueError
    return networks


def _smtp_url(text: str) -> str:
    """User and password must decode to printable ASCII: smtplib can send no other."""
    parts = urlsplit(text)
    login = [unquote(name, errors="strict") for name in (parts.username, parts.password) if name is not None]
    readable = re.fullmatch("[!-~]+", text) and all(re.fullmatch("[ -~]+", name) for name in login)
    rest = parts.path.removeprefix("/") + parts.query + parts.fragment
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or not parts.port:
        raise ValueError
    if rest or len(login) == 1 or not readable:
        raise ValueError
    parts.hostname.encode("idna")
    return text


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    if "@" in parts.netloc or not re.fullmatch("[!-~]+", text):
        raise ValueError
    parts.hostname.encode("idna")  # raises for an empty or too long label, as the resolver does
    return text


def _webhook_urls(text: str) -> tuple[str, ...]:
    return tuple(_web_url(url) for url in _entries(text))


def _reset_url(text: str) -> str:
    if text.count("{token}") != 1 or "{" in urlsplit(text).netloc or len(text) > MAX_LINK:
        raise ValueError
    return _web_url(text)


def _webhook_secret(text: str) -> str:
    key = base64.b64decode(text[6:], validate=True)
    if not 24 <= len(key) <= 64 or text != f"whsec_{base64.b64encode(key).decode()}":
        raise ValueError
    return text


def _addresses(text: str) -> tuple[str, ...]:
    """Addresses to listen on. Descriptors do not mix with other addresses: gunicorn would ignore the others."""
    addresses = tuple(_entries(text))
    for address in addresses:
        match = LISTENER.fullmatch(address)
        if not match or NOT_TEXT.search(address) or int(match[3] or 0) > 65_535:
            raise ValueError
        ipaddress.IPv6Address(match[1] or "::")
        if re.fullmatch("[0-9.]+", match[2] or ""):
            ipaddress.IPv4Address(match[2])
    if len({address.startswith("fd://") for address in addresses}) > 1:
        raise ValueError
    return addresses


def _matching(pattern: str | re.Pattern[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return parse


THREADS_ON_POSTGRES = 4
DATABASE_URL = "sqlite:///relative/file, sqlite:////absolute/file or, with the extra `postgres`, postgresql://…"
SMTP_URL = "smtp://[user:password@]host:port or smtps://…, user and password percent-encoded ASCII"
WHSEC = "whsec_ and base64 of 24 to 64 bytes"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
SECRET = {"JWT_SECRETS", "SMTP_URL", "WEBHOOK_URLS", "WEBHOOK_SECRET"}  # their values are never shown

# environment variable → attribute, parser, description of its values
VARIABLES: dict[str, tuple[str, Callable[[str], object], str]] = {
    "DATABASE_URL": ("database_path", _database, DATABASE_URL),
    "JWT_SECRETS": ("jwt_secrets", _secrets, "a comma list of secrets of at least 32 bytes each"),
    "ACCESS_TOKEN_SECONDS": ("access_token_seconds", _whole(1, 86_400), "a whole number from 1 to 86400"),
    "REFRESH_TOKEN_SECONDS": ("refresh_token_seconds", _whole(1, 2_592_000), "a whole number from 1 to 2592000"),
    "REFRESH_GRACE_SECONDS": ("refresh_grace_seconds", _whole(0, 300), "a whole number from 0 to 300"),
    "BCRYPT_ROUNDS": ("bcrypt_rounds", _whole(4, 18), "a whole number from 4 to 18"),
    "RATE_LIMIT_DEFAULT": ("rate_limit_default", _limit, "REQUESTS/SECONDS, such as 300/60, or off"),
    "RATE_LIMIT_AUTH": ("rate_limit_auth", _limit, "REQUESTS/SECONDS, such as 10/60, or off"),
    "TRUSTED_PROXIES": ("trusted_proxies", Networks, "a comma list of CIDR networks, and `unix`"),
    "CORS_ORIGINS": ("cors_origins", _origins, "a comma list of origins as browsers write them: https://example.org"),
    "LOG_LEVEL": ("log_level", _matching("|".join(LEVELS)), " or ".join(LEVELS)),
    "CACHE_SIZE": ("cache_size", _whole(0, 10**7), "a whole number from 0 to 10000000"),
    "CACHE_TTL_SECONDS": ("cache_ttl_seconds", _seconds(0, 86_400), "a number from 0 to 86400"),
    "SMTP_URL": ("smtp_url", _smtp_url, SMTP_URL),
    "MAIL_FROM": ("mail_from", _matching(MAILBOX), "an address such as no-reply@example.org"),
    "PASSWORD_RESET_URL": ("password_reset_url", _reset_url, "http:// or https://…, with {token} once, after the host"),
    "WEBHOOK_URLS": ("webhook_urls", _webhook_urls, "a comma list of http:// or https:// addresses"),
    "WEBHOOK_SECRET": ("webhook_secret", _webhook_secret, WHSEC),
    "WEBHOOK_ALLOW_NETWORKS": ("webhook_allow_networks", _networks, "a comma list of CIDR networks"),
    "AUDIT_KEEP_DAYS": ("audit_keep_days", _whole(1, 36_500), "a whole number from 1 to 36500"),
    "REQUEST_TIMEOUT_SECONDS": ("request_timeout_seconds", _seconds(0.1, 300), "a number from 0.1 to 300"),
    "WEB_CONCURRENCY": ("workers", _whole(1, 32), "a whole number from 1 to 32"),
    "THREADS": ("threads", _whole(1, 99), "a whole number from 1 to 99"),
    "BIND": ("bind", _addresses, "HOST:PORT, [IPv6]:PORT or unix:PATH, port at most 65535, or fd://N, or a comma list"),
    "BUSY_TIMEOUT_SECONDS": ("busy_timeout_seconds", _seconds(0.05, 300), "a number from 0.05 to 300"),
}
