"""The secrets of the service, and the keys that are derived from them."""

import base64
import os
import shutil

import pytest

from backend.infrastructure.keyring import Keyring, generated_secret
from backend.settings import SettingsError
from tests.at_once import at_once
from tests.forked import Forked

OLD, NEW, OTHER = (f"{name} secret of more than 32 bytes in all" for name in ("old", "new", "other"))


def test_the_first_secret_signs():
    """Its id does not depend on the other secrets of the keyring."""
    assert Keyring([NEW, OLD]).signing_id == Keyring([NEW]).signing_id != Keyring([OLD]).signing_id
    assert Keyring([NEW, OLD]).sign("label", b"message") == Keyring([NEW]).sign("label", b"message")


def test_every_secret_verifies():
    ring, signature = Keyring([NEW, OLD]), Keyring([OLD]).sign("label", b"message")
    assert ring.verifies("label", b"message", signature)
    assert ring.verifies("label", b"message", ring.sign("label", b"message"))
    assert not Keyring([NEW]).verifies("label", b"message", signature)


def test_a_named_secret_signs():
    """A refresh successor is computed again with the secret of the first time."""
    ring, old = Keyring([NEW, OLD]), Keyring([OLD])
    assert ring.sign("label", b"message", old.signing_id) == old.sign("label", b"message")
    with pytest.raises(KeyError):
        ring.sign("label", b"message", Keyring([OTHER]).signing_id)


def test_no_two_purposes_share_a_key():
    """Another label, message or secret gives another signature.

    No label and message concatenate to the same input as another pair.
    """
    made = {
        Keyring([secret]).sign(label, message)
        for secret in (OLD, NEW) for label in ("cursor", "reset", "") for message in (b"a", b"b", b"", b"cursor")
    }  # fmt: skip
    assert len(made) == 2 * 3 * 4
    ring = Keyring([OLD])
    assert ring.sign("cur", b"sor") != ring.sign("curs", b"or")
    assert not ring.verifies("reset", b"a", ring.sign("cursor", b"a"))


def test_a_signature_may_be_cut_to_16_bytes_and_no_shorter():
    ring = Keyring([NEW, OLD])
    whole = ring.sign("label", b"message")
    assert len(whole) == 32
    for length in range(33):
        assert ring.verifies("label", b"message", whole[:length]) is (length >= 16)
    assert not ring.verifies("label", b"message", whole + b"\0")
    assert not ring.verifies("label", b"message", bytes([whole[0] ^ 1]) + whole[1:])


@pytest.mark.parametrize("key_id", ["unknown", "", None, 7, ["x"], {}])
def test_unknown_ids_are_not_in_the_keyring(key_id):
    """Of any type, since a token's header may hold any."""
    assert key_id not in Keyring([NEW])


def test_an_id_finds_the_secret_and_reveals_nothing_of_it():
    ring = Keyring(["schlüssel, lang genug für 32 Bytes und mehr"])
    assert ring.signing_id in ring
    assert ring[ring.signing_id] == "schlüssel, lang genug für 32 Bytes und mehr".encode()
    secret = ring[ring.signing_id]
    shapes = secret.decode(), secret.hex(), base64.b64encode(secret).decode()
    assert not any(ring.signing_id in shape for shape in shapes)


def test_a_secret_is_generated_once_and_kept(tmp_path):
    """In a folder that is created for it, in a file of at least 32 bytes that only its owner can read, with no other
    file beside.
    """
    path = tmp_path / "var" / "jwt-secret"
    secret = generated_secret(path)
    assert len(secret.encode()) >= 32
    assert generated_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert generated_secret(tmp_path / "elsewhere") != secret


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_an_operators_own_file_is_read_as_it_is(tmp_path, mode):
    path = tmp_path / "jwt-secret"
    path.write_text(f" {OLD}\n")
    path.chmod(mode)
    assert generated_secret(path) == OLD


def refused(path):
    """The one line that says why the file is refused. It reveals no content, and the file does not change."""
    with pytest.raises(SettingsError) as stopped:
        generated_secret(path)
    (line,) = str(stopped.value).splitlines()
    assert str(path) in line
    assert "JWT_SECRETS" in line and "must be" in line and "32 bytes" in line
    assert stopped.value.__suppress_context__  # a traceback would print what could not be read
    return line


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"x", b"s" * 31, b"s" * 31 + b"\n\n\n", " é ".encode() * 4, b"\xff" * 48, b"\0" * 48,
        f"{OLD}\n{NEW}".encode(), f"{OLD}\0".encode(), f"\ufeff{OLD}".encode("utf-16"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_secret_is_refused(tmp_path, content):
    """The rule is that of JWT_SECRETS: one line of text of at least 32 bytes."""
    path = tmp_path / "jwt-secret"
    path.write_bytes(content)
    path.chmod(0o600)
    assert f"{len(content)} bytes" in refused(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o620, 0o666])
def test_a_file_that_other_users_can_access_is_refused(tmp_path, mode):
    path = tmp_path / "jwt-secret"
    path.write_text(OLD)
    path.chmod(mode)
    assert f"{mode:04o}" in (line := refused(path)) and OLD not in line


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_anything_but_a_file_is_refused(tmp_path, kind):
    path = tmp_path / "jwt-secret"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path, 0o600),
        "dangling link": lambda: path.symlink_to(tmp_path / "gone"),
    }[kind]()
    refused(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_read_once_by_a_process(tmp_path):
    """A worker that starts later is forked from a process that has read it, so all workers have the same one."""
    path = tmp_path / "var" / "jwt-secret"
    secret = generated_secret(path)
    path.write_text("x")
    assert generated_secret(path) == secret
    shutil.rmtree(path.parent)
    assert Forked(lambda: generated_secret(path)).result() == secret
    assert not path.exists()


def test_threads_that_start_at_once_get_one_secret(tmp_path):
    path = tmp_path / "jwt-secret"
    assert len(set(at_once([lambda: generated_secret(path)] * 16))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_start_at_once_get_one_secret(tmp_path):
    """As workers do at the first start."""
    path = tmp_path / "jwt-secret"
    workers = [Forked(lambda: generated_secret(path)) for _ in range(8)]
    assert len({worker.result() for worker in workers}) == 1
    assert list(tmp_path.iterdir()) == [path]
