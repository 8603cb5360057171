"""Settings: defaults, valid values and invalid values; an invalid value stops the start and is named."""

import base64
from pathlib import Path

import pytest

from backend.settings import VARIABLES, Limit, Settings, SettingsError

SECRET = "s" * 32
BAD_NUMBERS = (
    "abc",
    "1.5",
    "-1",
    "+5",
    "1e3",
    "0x10",
    "1_000",
    "٣",
    "²",
    "99999999999999999999999",
    f"{'0' * 20}5",
    "5 5",
    "nan",
)
BAD_SECONDS = (
    "abc",
    "-1",
    "+5",
    "nan",
    "inf",
    "1e99",
    "1e0",
    "5.",
    ".5",
    "1,5",
    "0x10",
    "1_000",
    "5 s",
    "٣",
    "9" * 400,
)


def webhook_secret(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


GOOD = {  # variable → text, attribute, value
    "DATABASE_URL": [
        ("sqlite:///var/other.db", "database_path", Path("var/other.db")),
        ("sqlite:////srv/app.db", "database_path", Path("/srv/app.db")),
        ("SQLite:///ü/50%25 #1.db", "database_path", Path("ü/50%25 #1.db")),
    ],
    "JWT_SECRETS": [
        (SECRET, "jwt_secrets", (SECRET,)),
        (f"{SECRET} , {'é' * 16}", "jwt_secrets", (SECRET, "é" * 16)),
        (f"{SECRET}\t,\n{'n' * 32}\n", "jwt_secrets", (SECRET, "n" * 32)),
        (f"blanks  within {SECRET}", "jwt_secrets", (f"blanks  within {SECRET}",)),
    ],
    "ACCESS_TOKEN_SECONDS": [("60", "access_token_seconds", 60)],
    "REFRESH_TOKEN_SECONDS": [("3600", "refresh_token_seconds", 3600)],
    "REFRESH_GRACE_SECONDS": [("0", "refresh_grace_seconds", 0)],
    "BCRYPT_ROUNDS": [("4", "bcrypt_rounds", 4)],
    "RATE_LIMIT_DEFAULT": [("500/30", "rate_limit_default", Limit(500, 30)), ("off", "rate_limit_default", None)],
    "RATE_LIMIT_AUTH": [("5/60", "rate_limit_auth", Limit(5, 60)), ("off", "rate_limit_auth", None)],
    "CORS_ORIGINS": [
        ("https://a.example, http://[::1]:3000", "cors_origins", {"https://a.example", "http://[::1]:3000"}),
        ("https://a.example:80,https://a.example:80", "cors_origins", {"https://a.example:80"}),
        ("http://localhost:3000", "cors_origins", {"http://localhost:3000"}),
    ],
    "LOG_LEVEL": [("DEBUG", "log_level", "DEBUG"), ("ERROR", "log_level", "ERROR")],
    "CACHE_SIZE": [("0", "cache_size", 0)],
    "CACHE_TTL_SECONDS": [("0.5", "cache_ttl_seconds", 0.5)],
    "MAIL_FROM": [(text, "mail_from", text) for text in ("no-reply@localhost", "a.b+c@mail.shop.example")],
    "PASSWORD_RESET_URL": [
        (text, "password_reset_url", text)
        for text in ("https://shop.example/reset?token={token}", "http://localhost:3000/#{token}")
    ],
    "SMTP_URL": [
        (url, "smtp_url", url)
        for url in (
            "smtps://ada:word@mail.example:465",
            "smtp://mail.example:25",
            "SMTP://[::1]:65535/",
            "smtp://ada%40a.example:a%3Ab%2F%25@mail.example:587",
        )
    ],
    "WEBHOOK_URLS": [
        ("https://a.example/x , http://b.example", "webhook_urls", ("https://a.example/x", "http://b.example")),
        ("HTTPS://[::1]:65535/?a=%20", "webhook_urls", ("HTTPS://[::1]:65535/?a=%20",)),
    ],
    "WEBHOOK_SECRET": [(text, "webhook_secret", text) for text in map(webhook_secret, (24, 25, 26, 32, 64))],
    "AUDIT_KEEP_DAYS": [("1", "audit_keep_days", 1), ("36500", "audit_keep_days", 36_500)],
    "REQUEST_TIMEOUT_SECONDS": [("2.5", "request_timeout_seconds", 2.5)],
    "BUSY_TIMEOUT_SECONDS": [("1", "busy_timeout_seconds", 1.0)],
    "WEB_CONCURRENCY": [("1", "workers", 1)],
    "THREADS": [("16", "threads", 16)],
    "BIND": [
        ("localhost:0, [::1]:65535", "bind", ("localhost:0", "[::1]:65535")),
        ("unix:/run/app.sock,0.0.0.0:80", "bind", ("unix:/run/app.sock", "0.0.0.0:80")),
        ("fd://3,fd://4", "bind", ("fd://3", "fd://4")),
    ],
}

BAD = {
    "DATABASE_URL": (
        "app.db", "sqlite://app.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "mysql://host/db",
        "mysql://ada:word@host/db", "file:a.db", "sqlite:///.", "sqlite:///..", "sqlite:////", "sqlite:///var/",
        "sqlite:///var/..", "sqlite:///a\nb.db", "sqlite:///a\udcff.db",
    ),
    "JWT_SECRETS": (
        "short", "s" * 31, "é" * 15, f"{SECRET},short", f"{SECRET},", f",{SECRET}", f"{SECRET},,{SECRET}",
        f"{SECRET}, ,{SECRET}", f"{'s' * 31} , {SECRET}", f"{SECRET}, {'s' * 31}", f"{SECRET}\n{SECRET}",
        f"{SECRET}\x7f{SECRET}", f"{SECRET}\udcff",
    ),
    "ACCESS_TOKEN_SECONDS": (*BAD_NUMBERS, "0", "86401"),
    "REFRESH_TOKEN_SECONDS": (*BAD_NUMBERS, "0", "2592001"),
    "REFRESH_GRACE_SECONDS": (*BAD_NUMBERS, "301"),
    "BCRYPT_ROUNDS": (*BAD_NUMBERS, "0", "3", "19", "31"),
    "RATE_LIMIT_DEFAULT": (
        "300", "300/", "/60", "0/60", "300/0", "-1/60", "300/60/1", "300 / 60", "3e2/60", "OFF", "none",
    ),
    "RATE_LIMIT_AUTH": ("10", "10/", "/60", "0/60", "10/0", "10/-1", "10/1.5", "10/minute", "٣/٣"),
    "TRUSTED_PROXIES": ("everybody", "10.0.0.0/33", "10.0.0", "::1/129", "10.0.0.1 10.0.0.2", "unix:/run/x", "*",
                        "UNIX", "10.0.0.0/8,", ",", "10.0.0.0/8,,unix", "fe80::1%eth0", "10.0.0.0/٨", "010.0.0.0/8",
                        "10.0.0.0/-1", "0x0a000000/8"),
    "CORS_ORIGINS": (
        "*", "null", "example.org", "https://", "https://a.example/", "https://a.example/path", "ftp://a.example",
        "https://a.example,*", "https://a.example?x", "https://*.example", "https://A.example",
        "https://u@a.example", "https://a.example:port", "https://a.example,", "https://a.example:443",
        "http://a.example:80", "https://a.example:0", "https://a.example:08", "https://a.example:65536",
        "https://a.example:99999", "HTTPS://a.example", "https://[::::]", "https://ü.example",
    ),
    "LOG_LEVEL": ("debug", "VERBOSE", "10", "CRITICAL"),
    "CACHE_SIZE": (*BAD_NUMBERS, "10000001"),
    "CACHE_TTL_SECONDS": (*BAD_SECONDS, "86401"),
    "MAIL_FROM": (
        "nobody", "@shop.example", "a@", "a@b@c", "a b@c", "Shop <a@shop.example>", "a@shop.example, b@shop.example",
        "a@shop..example", ".a@shop.example", "ü@shop.example", "=?utf-8?q?v=40b?=@shop.example",
        "a@b\r\nBcc: c@d",
    ),
    "PASSWORD_RESET_URL": (
        "https://shop.example/reset", "{token}", "shop.example/{token}", "ftp://shop.example/{token}",
        "javascript:alert('{token}')", "https://{token}.example/", "https://{token}@shop.example/",
        "https://shop.example/{TOKEN}", "https://shop.example/ {token}", "https://shop.example/ü/{token}",
        "https://:80/{token}", "https://a.example/{token}/{token}", f"https://shop.example/{'x' * 800}{{token}}",
    ),
    "SMTP_URL": (
        "mail.example:25", "http://mail.example:25", "smtp://", "smtp://mail.example", "smtp://mail.example:0",
        "smtp://mail.example:port", "smtp://mail.example:70000", "smtp://mail.example:-1", "smtp://mail.example:٢٥",
        "smtp://:25", "smtp://ada@mail.example:25", "smtp://ada:@mail.example:25", "smtp://:word@mail.example:25",
        "smtp://a%0d%0ab:word@mail.example:25", "smtp://ada:%ff@mail.example:25", "smtp://ada:w%C3%B6rd@mail.example:25",
        "smtp://mail.example:25/path", "smtp://mail.example:25?tls=yes", "smtp://mail.example:25#x",
        "smtp://mail.example:25,smtp://b.example:25", "smtp://[::1:25", "smtp://ma il.example:25", "smtp://a..b:25",
    ),
    "WEBHOOK_URLS": ("a.example", "ftp://a.example", "https://", "https://a.example,", "https://a.example:port",
                     "https://a.example:0", "https://u:p@a.example", "https://a..example",
                     f"https://{'a' * 64}.example", "https://a.example/ü", "https://a.example/a b"),
    "WEBHOOK_SECRET": (
        "x", "a text of more than 24 characters", "whsec_", "whsec_!", "whsec_abc", webhook_secret(23),
        webhook_secret(65), webhook_secret(24)[6:], webhook_secret(24).upper(), webhook_secret(24).replace("_", "_ "),
        f"{webhook_secret(24)}!", f"{webhook_secret(24)[:-4]}-_-_", f"{webhook_secret(24)} {webhook_secret(24)}",
        webhook_secret(25).rstrip("="), webhook_secret(25).replace("A==", "B=="),
    ),
    "WEBHOOK_ALLOW_NETWORKS": ("private", "10.0.0.0/33", "10.0.0.0/8;::1", "unix", "10.0.0.0/8,", ","),
    "REQUEST_TIMEOUT_SECONDS": (*BAD_SECONDS, "0", "0.05", "301"),
    "BUSY_TIMEOUT_SECONDS": (*BAD_SECONDS, "0", "0.01", "301"),
    "AUDIT_KEEP_DAYS": (*BAD_NUMBERS, "0", "36501"),
    "WEB_CONCURRENCY": (*BAD_NUMBERS, "0", "33"),
    "THREADS": (*BAD_NUMBERS, "0", "100"),
    "BIND": (
        "nonsense", "localhost", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:99999", "127.0.0.1:-1",
        "127.0.0.1:٨٠", "127.0.0.1:80:80", ":8000", "127.0.0.1:80,", "127.0.0.1:80 127.0.0.1:81", "127.0.0.256:80",
        "127.1.2.3.4:80", "\udcff:80", "::1:80", "[::1]", "[1:2]:80", "http://localhost:80", "unix:", "fd://", "fd://x",
        "fd://3,127.0.0.1:80",
    ),
}  # fmt: skip

NETWORKS = {"TRUSTED_PROXIES", "WEBHOOK_ALLOW_NETWORKS"}
SECRETS = {"JWT_SECRETS", "SMTP_URL", "WEBHOOK_URLS", "WEBHOOK_SECRET"}


def rows(table):
    return [(name, value) for name, values in table.items() for value in values]


def test_every_variable_has_its_tests():
    """The networks have a test of their own."""
    assert BAD.keys() == GOOD.keys() | NETWORKS == VARIABLES.keys()


def test_without_variables_everything_has_the_default_of_the_contract():
    settings = Settings.from_environment({"PATH": "/bin", "UNKNOWN": "x"})
    expected = {
        "database_path": Path("var/app.db"), "jwt_secrets": (), "access_token_seconds": 900,
        "refresh_token_seconds": 604_800, "refresh_grace_seconds": 10, "bcrypt_rounds": 12,
        "rate_limit_default": Limit(300, 60), "rate_limit_auth": Limit(10, 60), "cors_origins": frozenset(),
        "request_timeout_seconds": 10, "busy_timeout_seconds": 5, "smtp_url": None, "webhook_urls": (),
        "webhook_secret": None, "mail_from": None, "password_reset_url": None, "bind": ("127.0.0.1:8000",),
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in expected} == expected
    assert "127.0.0.1" not in settings.trusted_proxies and "10.0.0.1" not in settings.webhook_allow_networks


@pytest.mark.parametrize("blank", ["", " ", "\t"])
@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - NETWORKS))
def test_a_blank_variable_counts_as_unset(name, blank):
    attribute = VARIABLES[name][0]
    given, default = Settings.from_environment({name: blank}), Settings.from_environment({})
    assert getattr(given, attribute) == getattr(default, attribute)


@pytest.mark.parametrize(("name", "case"), rows(GOOD))
def test_a_good_value_is_read(name, case):
    """White space around it is ignored."""
    text, attribute, value = case
    environment = {"WEBHOOK_SECRET": webhook_secret(24), name: f" {text} "}
    assert getattr(Settings.from_environment(environment), attribute) == value


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_are_read(name):
    settings = Settings.from_environment({name: "10.0.0.0/8, 192.0.2.7,fd00::/8"})
    networks = getattr(settings, VARIABLES[name][0])
    inside = ("10.1.2.3", "192.0.2.7", "fd00::1", "::ffff:10.0.0.1")
    assert all(address in networks for address in inside)
    assert not any(address in networks for address in ("11.0.0.1", "192.0.2.8", "fe80::1", "", "nonsense"))
    assert "10.1.2.3" not in getattr(Settings.from_environment({name: " "}), VARIABLES[name][0])


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.1.2.3/8", "10.9.9.9", "11.0.0.1"),
        ("fd00::1/8", "fdff::1", "fe00::1"),
        ("10.0.0.0/255.0.0.0", "10.9.9.9", "11.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ("::ffff:10.0.0.0/104", "::ffff:10.9.9.9", "::ffff:11.0.0.1"),
        ("::/0", "2001:db8::1", "10.0.0.1"),
        ("10.0.0.0/8,10.0.0.0/8", "10.9.9.9", "11.0.0.1"),
    ],
)
def test_a_network_is_what_it_covers(name, text, inside, outside):
    """Host bits are dropped, and IPv4 mapped into IPv6 is IPv4, as for addresses."""
    networks = getattr(Settings.from_environment({name: text}), VARIABLES[name][0])
    assert inside in networks and outside not in networks


@pytest.mark.parametrize(("name", "text"), rows(BAD))
def test_a_bad_value_stops_the_start_with_one_line(name, text):
    """The line names the variable, its value (unless that is a secret) and the allowed values."""
    with pytest.raises(SettingsError) as stopped:
        Settings.from_environment({name: text})
    message = str(stopped.value)
    was, separator, may_be = message.partition("; it must be ")
    assert separator and may_be and "\n" not in message
    assert was == f"{name} was {f'{len(text)} characters, not shown' if name in SECRETS or '@' in text else repr(text)}"


def test_a_value_of_many_lines_is_shown_in_one():
    with pytest.raises(SettingsError) as stopped:
        Settings.from_environment({"LOG_LEVEL": "INFO\nDEBUG"})
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("name", ["JWT_SECRETS", "SMTP_URL", "WEBHOOK_URLS"])
def test_no_part_of_a_bad_secret_is_shown(name):
    """Neither in the message nor in a traceback."""
    with pytest.raises(SettingsError) as stopped:
        Settings.from_environment({name: "hush-hush,and more"})
    shown = stopped.getrepr(style="short", chain=True).reprcrash.message + repr(stopped.value)
    assert "hush" not in shown
    assert stopped.value.__suppress_context__ and stopped.value.__cause__ is None


def test_the_settings_do_not_show_their_secrets():
    """A dataclass prints its fields, but not these."""
    environment = {
        "JWT_SECRETS": f"hush-{SECRET}", "SMTP_URL": "smtp://ada:hush@mail.example:25",
        "WEBHOOK_URLS": "https://a.example/hush", "WEBHOOK_SECRET": f"whsec_{'hush' * 8}",
    }  # fmt: skip
    settings = Settings.from_environment(environment)
    assert settings.webhook_secret == f"whsec_{'hush' * 8}"
    assert "hush" not in repr(settings) and "hush" not in str(settings)


@pytest.mark.parametrize("name", GOOD)
def test_what_the_environment_does_not_set_is_read_from_the_service_managers_credentials(name, tmp_path):
    text, attribute, value = GOOD[name][0]
    (tmp_path / name).write_text(f"{text}\n")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    if name == "WEBHOOK_URLS":
        (tmp_path / "WEBHOOK_SECRET").write_text(webhook_secret(24))
    assert getattr(Settings.from_environment(environment | {name: " "}), attribute) == value


def test_the_environment_goes_before_a_credential(tmp_path):
    (tmp_path / "LOG_LEVEL").write_text("nonsense")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "LOG_LEVEL": "DEBUG"}
    assert Settings.from_environment(environment).log_level == "DEBUG"


def test_a_bad_credential_stops_the_start_with_one_line_without_it(tmp_path):
    (tmp_path / "JWT_SECRETS").write_text("too short")
    with pytest.raises(SettingsError, match=r"JWT_SECRETS was 9 characters, not shown") as caught:
        Settings.from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "too short" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff" * 40, None], ids=["not UTF-8", "a folder"])
def test_a_credential_that_cannot_be_read_stops_the_start_with_one_line(tmp_path, content):
    path = tmp_path / "JWT_SECRETS"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(SettingsError, match=r"JWT_SECRETS in CREDENTIALS_DIRECTORY cannot be read \([^\n\xff]+\)"):
        Settings.from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_on_postgresql_a_worker_has_four_threads_unless_the_operator_says_otherwise():
    there = {"DATABASE_URL": "postgresql://db.example/app"}
    assert Settings.from_environment(there).threads == 4
    assert Settings.from_environment(there | {"THREADS": "8"}).threads == 8
    assert Settings.from_environment({}).threads == 8
