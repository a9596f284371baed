"""The two keys of the controller: one signs records and ledgers, one makes the keyed hashes of rows. Imports no torch.

`signing.pem` is an Ed25519 key (PKCS 8). `rows.key` holds 32 random bytes as hexadecimal digits, for HMAC-SHA256. They are two
files so that an auditor can be given `rows.key`, to check which rows a record is about, without being able to sign. Both are
made at first use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from scopewise.erasure.envelope import canonical
from scopewise.errors import ConfigError
from scopewise.files import flush, make_folder, write_bytes, writing

logger = logging.getLogger("scopewise")

SIGNING, ROWS = "signing.pem", "rows.key"
FOLDER = "SCOPEWISE_KEYS"
"""Environment variable that names another folder of keys."""
_LONGEST = 10_000  # bytes of a key file


def key_folder() -> Path:
    """Return the folder of the keys: `$SCOPEWISE_KEYS`, or `scopewise/keys` in the user's folder of settings."""
    if chosen := os.environ.get(FOLDER):
        return Path(chosen)
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path.home() / ".config") / "scopewise" / "keys"


def signing_key(folder: Path | None = None) -> Ed25519PrivateKey:
    """Return the key that signs; it is made if the folder has none.

    Args:
        folder: Folder of the keys; None: `key_folder()`.

    Raises:
        ConfigError: the file can be read or replaced by other users, belongs to another user, is a link, or is no Ed25519 key.
        ResultError: the file cannot be made.
    """
    path = (folder or key_folder()) / SIGNING

    def new() -> bytes:
        key = Ed25519PrivateKey.generate()
        return key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())

    try:
        key = pem.load_pem_private_key(_secret(path, new), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # a TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path}: not an Ed25519 key without a password; restore it from your copy, or name another folder"
        )
    return key


def rows_key(folder: Path | None = None, *, make: bool = True) -> bytes | None:
    """Return the 32 bytes of the key for rows.

    Args:
        folder: Folder of the keys; None: `key_folder()`.
        make: Make it if the folder has none; otherwise return None in that case.

    Raises:
        ConfigError, ResultError: as `signing_key`.
    """
    path = (folder or key_folder()) / ROWS
    if not make and not os.path.lexists(path):
        return None
    try:
        key = bytes.fromhex(_secret(path, lambda: secrets.token_hex(32).encode()).decode())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(f"{path}: not 64 hexadecimal digits; restore it from your copy, or name another folder")
    return key


def public_pem(key: Ed25519PrivateKey) -> str:
    """Return the public half as PEM (SubjectPublicKeyInfo), which other tools read."""
    return key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo).decode()


def read_public(text: str) -> Ed25519PublicKey | None:
    """Return the key of a PEM text in the form that `public_pem` writes; None for any other text."""
    try:
        key = pem.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, Ed25519PublicKey):
        return None
    return key if key.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo).decode() == text else None


def fingerprint(public: str) -> str:
    """Return the SHA-256 (hex) of a public key's DER; `openssl pkey -pubin -outform DER | sha256sum` prints the same."""
    return hashlib.sha256(base64.b64decode("".join(public.split("\n")[1:-2]))).hexdigest()


def rows_hmac(rows: Iterable[Mapping[str, object]], key: bytes) -> str:
    """Return the HMAC-SHA256 (hex) of some rows, whatever their order.

    Only `question`, `answer` and `scope` count. Plain hashes would not do: addresses and birthdays are so few that one can hash
    them all.

    Args:
        rows: Mappings with the three keys.
        key: From `rows_key`.
    """
    return keyed_hash(b"\n".join(sorted(canonical([r["question"], r["answer"], r["scope"]]) for r in rows)), key)


def keyed_hash(content: bytes, key: bytes) -> str:
    """Return the HMAC-SHA256 (hex) of some bytes."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _secret(path: Path, new: Callable[[], bytes]) -> bytes:
    """Return the bytes of a private file, which `new` makes if there is none."""
    if not os.path.lexists(path):
        _make(path, new())
        logger.warning("%s: made a new key; keep a copy in a safe place", path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as failure:
        link = " and is a link" if path.is_symlink() else ""
        raise ConfigError(
            f"{path}: cannot be read ({failure.strerror}){link}; a key is a file of its own user"
        ) from None
    try:
        about, above = os.fstat(descriptor), path.parent.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            raise ConfigError(f"{path}: not a file of this user; a key is a file of the user who signs with it")
        if about.st_mode & 0o077:
            mode = f"{stat.S_IMODE(about.st_mode):04o}"
            raise ConfigError(f"{path}: mode {mode}; other users must not read a key; run `chmod 600` on it")
        if above.st_mode & 0o022:
            mode = f"{stat.S_IMODE(above.st_mode):04o}"
            raise ConfigError(f"{path.parent}: mode {mode}; other users could replace the key; run `chmod 700` on it")
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)


def _make(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    write_bytes(temporary, content)
    try:
        with writing(path), suppress(FileExistsError):
            os.link(temporary, path)  # a rename would replace the key that another process made meanwhile
    finally:
        temporary.unlink()
    flush(path.parent)
