"""Signed JSON: DSSE envelopes, and the canonical bytes that are signed. Imports no torch.

Source: DSSE 1.0 (github.com/secure-systems-lab/dsse, `envelope.md` and `protocol.md`). Deviation: only the one form that
`canonical` writes is accepted, with one signature, so that no byte of a file can change unnoticed. DSSE itself signs only the
payload and its type; white space, `keyid` and the unused bits of base64 could change.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from scopewise.documents import parse_json
from scopewise.errors import ResultError

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def canonical(value: Any) -> bytes:
    """Return JSON as UTF-8 with sorted keys and no white space. Raises ResultError where a text is not Unicode."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as error:  # also a UnicodeEncodeError
        raise ResultError(f"record: a value that JSON does not have ({error}); leave it out") from None


def pre_authentication(kind: str, body: bytes) -> bytes:
    """Return the bytes that are signed (DSSE's PAE): the type and the body, each with its number of bytes before it."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(body), body)


def sign_bytes(key: Ed25519PrivateKey, kind: str, body: bytes) -> str:
    """Return the base64 of the signature of a body of a type."""
    return base64.b64encode(key.sign(pre_authentication(kind, body))).decode()


def is_signed(key: Ed25519PublicKey, kind: str, body: bytes, signature: Any) -> bool:
    """Return whether a signature, in base64, is that of the key."""
    content = _decoded(signature)
    try:
        if content is not None:
            key.verify(content, pre_authentication(kind, body))
            return True
    except InvalidSignature:
        pass
    return False


def seal(payload: bytes, key: Ed25519PrivateKey, keyid: str) -> dict[str, Any]:
    """Return the DSSE envelope of a payload.

    Args:
        payload: The canonical bytes of an in-toto Statement.
        key: The key that signs.
        keyid: Fingerprint of its public half.
    """
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keyid, "sig": sign_bytes(key, PAYLOAD_TYPE, payload)}],
    }


def unseal(content: bytes, where: str, key_of: Callable[[Any], tuple[Ed25519PublicKey, str] | None]) -> dict[str, Any]:
    """Return the payload of an envelope's file, after checking form and signature.

    Args:
        content: The bytes of the file.
        where: The file, for the message.
        key_of: Returns the public key and its fingerprint for a decoded payload that is not trusted yet; None if it has none.

    Raises:
        ResultError: not in the form in which it was written, or not signed by that key.
    """
    envelope = parse_canonical(content, where)
    match envelope:
        case {
            "payload": str(text),
            "payloadType": kind,
            "signatures": [{"keyid": keyid, "sig": signature, **more}],
        } if not more and len(envelope) == 3 and kind == PAYLOAD_TYPE and (payload := _decoded(text)) is not None:
            pass
        case _:
            raise ResultError(f"{where}: not a DSSE envelope of an in-toto statement with one signature; get it again")
    statement = parse_canonical(payload, f"{where} (payload)", end=b"")
    found = key_of(statement)
    if found is None:
        raise ResultError(f"{where}: it does not name the Ed25519 key that signed it; get it again")
    key, fingerprint = found
    if keyid != fingerprint or not is_signed(key, PAYLOAD_TYPE, payload, signature):
        raise ResultError(f"{where}: the signature does not fit; it was changed after it was signed; get it again")
    return statement


def parse_canonical(content: bytes, where: str, end: bytes = b"\n") -> Any:
    """Return decoded JSON that is written exactly as `canonical` writes it. Raises ResultError for any other bytes."""
    try:
        value = parse_json(content.decode(), where, ResultError)
    except UnicodeDecodeError:
        raise ResultError(f"{where}: not UTF-8; it was changed after it was written; get it again") from None
    if canonical(value) + end != content:
        raise ResultError(f"{where}: not in the form in which it was written; it was changed; get it again")
    return value


def _decoded(text: Any) -> bytes | None:
    """Return the bytes of a base64 text in its only form; None for any other value."""
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        return None
    return content if base64.b64encode(content).decode() == text else None
