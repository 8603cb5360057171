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
from collections.abc import Sequence
from pathlib import Path


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


def generated_secret(path: Path) -> str:
    """The secret kept in the file at `path` (mode 0600), made there once, also when several processes start at once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # somebody was faster: his secret it is
            os.link(draft, path)
        draft.unlink()
    return path.read_text().strip()
