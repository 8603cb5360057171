"""The service's secrets, and every key that is derived from them.

The first secret signs, all verify, so a secret is rotated by putting a new one in front. Cursors, refresh successors
and reset tokens are signed with keys derived by labelled HMAC: the database, its outbox and its backups hold nothing
that could be used, and no two purposes share a key.
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
        return key_id in self._by_id if isinstance(key_id, str) else False

    def __getitem__(self, key_id: str) -> bytes:
        """The secret of that id; KeyError for an unknown one."""
        return self._by_id[key_id]

    def sign(self, label: str, message: bytes, key_id: str | None = None) -> bytes:
        """32 bytes of HMAC-SHA-256 under the key that `label` derives from the signing (or the named) secret."""
        return _mac(_mac(self._by_id[key_id or self.signing_id], label.encode()), message)

    def verifies(self, label: str, message: bytes, signature: bytes) -> bool:
        """True if any of the secrets made `signature`, which may be cut to its first 16 bytes. Constant time."""
        length = max(len(signature), 16)
        made = [self.sign(label, message, key_id)[:length] for key_id in self._by_id]
        return True in [hmac.compare_digest(one, signature) for one in made]


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def signing_secrets(settings: Settings) -> Sequence[str]:
    """JWT_SECRETS, or else the secret that is kept beside the database. Raises SettingsError."""
    return settings.jwt_secrets or (generated_secret(settings.database_path.parent / "jwt-secret"),)


@cache  # so that workers that are forked later have the secret of the first ones, whatever becomes of the file
def generated_secret(path: Path) -> str:
    """The secret kept in the file at `path`, made there once, also when several processes start at once.

    Raises SettingsError unless that is a file of mode 0600 (or less) that holds what JWT_SECRETS may hold.
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
    except ValueError:  # no text, or too short; its own message would show the secret
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
        with contextlib.suppress(FileExistsError):  # another process was faster: its secret is the one
            os.link(draft, path)
    finally:
        draft.unlink()
