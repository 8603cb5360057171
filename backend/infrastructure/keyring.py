"""The secrets of the service, and the keys that are derived from them.

The first secret signs and all verify, so a secret is rotated by putting a new one in front. Cursors, refresh successors
and reset tokens are signed with keys that are derived by labelled HMAC. So no two purposes share a key, and neither the
database nor its backups hold a usable token.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from backend.infrastructure.private_files import make_folder
from backend.settings import Settings, SettingsError, jwt_secret


class Keyring:
    """Immutable; thread-safe."""

    def __init__(self, texts: Sequence[str]) -> None:
        keys = [text.encode() for text in texts]
        self._by_id = {_mac(key, b"key id").hex()[:16]: key for key in keys}
        self.signing_id = next(iter(self._by_id))

    def __contains__(self, key_id: object) -> bool:
        return isinstance(key_id, str) and key_id in self._by_id

    def __getitem__(self, key_id: str) -> bytes:
        """The secret with this id. Raises KeyError."""
        return self._by_id[key_id]

    def sign(self, label: str, message: bytes, key_id: str | None = None) -> bytes:
        """32 bytes: HMAC-SHA-256 under the key that `label` derives from the secret `key_id`, else the signing one."""
        return _mac(_mac(self._by_id[key_id or self.signing_id], label.encode()), message)

    def verifies(self, label: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is what `sign` makes with any secret, whole or cut to 16 bytes or more. Constant time."""
        length = max(len(signature), 16)
        made = [self.sign(label, message, key_id)[:length] for key_id in self._by_id]
        return True in [hmac.compare_digest(one, signature) for one in made]


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def signing_secrets(settings: Settings) -> Sequence[str]:
    """JWT_SECRETS or, if empty, the secret in the file beside the database. Raises SettingsError."""
    return settings.jwt_secrets or (generated_secret(settings.database_path.parent / "jwt-secret"),)


def secret_warnings(settings: Settings) -> list[str]:
    """Warnings about JWT_SECRETS for the operator, one line each."""
    if settings.postgres_url and not settings.jwt_secrets:
        return ["JWT_SECRETS is not set: this host signs with a secret of its own, which other hosts do not accept"]
    return []


@cache  # the server's master reads it before it forks, so all workers have the same one, even if the file is replaced
def generated_secret(path: Path) -> str:
    """The secret in the file at `path`, which is created once, even if several processes start at the same time.

    Raises SettingsError unless it is a file with mode 0600 (or stricter) that holds a valid secret.
    """
    try:
        if not path.exists():
            _make_secret(path)
        file = path.stat()
        was = f"{file.st_size} bytes of mode {stat.S_IMODE(file.st_mode):04o}"
        if stat.S_ISREG(file.st_mode) and not file.st_mode & 0o077:
            return jwt_secret(path.read_text(encoding="utf-8"))
    except OSError as error:
        was = error.strerror or str(error)
    except ValueError:  # not text, or too short; this error's message would show the secret
        pass
    must_be = "a file of mode 0600 that holds one line of text of at least 32 bytes"
    raise SettingsError(f"JWT_SECRETS was empty, and {path} was: {was}; it must be {must_be}") from None


def _make_secret(path: Path) -> None:
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster; its secret is used
            os.link(draft, path)
    finally:
        draft.unlink()
