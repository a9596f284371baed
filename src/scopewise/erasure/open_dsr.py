"""Erasure requests of OpenDSR 2.0, the JSON in which controllers send deletion requests to processors.

Source: github.com/opengdpr/OpenDSR, specification.md at 0a37874, sections 5 (identities) and 7 (requests).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.errors import DataError

_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}


def from_open_dsr(record: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """Return the keys of a request file. Identities are hashed, and callbacks are never called.

    `rows`, `model` and `law` stand in one of its `extensions`, under the processor's domain.

    Raises:
        DataError: not an erasure request of version 2, or without rows.
    """
    version, kind = str(record.get("api_version", "2.0")), record.get("subject_request_type")
    if version.partition(".")[0] != "2":
        raise DataError(f"{path}: api_version {version!r}; version 2.0 of OpenDSR is read; convert the request")
    if kind != "erasure":
        raise DataError(f"{path}: subject_request_type {kind!r}; only 'erasure' asks to forget; give such a request")
    extensions = record.get("extensions")
    given = extensions.values() if isinstance(extensions, dict) else ()
    own = [extension for extension in given if isinstance(extension, dict) and "rows" in extension]
    if len(own) != 1:
        raise DataError(
            f"{path}: {len(own)} of its extensions have 'rows'; one must, as in 'extensions': {{'example.com': "
            "{'rows': 'rows.jsonl'}}"
        )
    identities = record.get("subject_identities") or []
    if not isinstance(identities, list) or not all(isinstance(each, dict) for each in identities):
        raise DataError(f"{path}: subject_identities is no list of objects; write it as in OpenDSR")
    salt = record["subject_request_id"]
    return {key: own[0][key] for key in ("rows", "model", "law") if key in own[0]} | {
        "id": salt,
        "regulation": record.get("regulation"),
        "received": record.get("submitted_time"),
        "subject": subject_hash(identities, str(salt)) if identities else None,
    }


def subject_hash(identities: Sequence[Mapping[str, Any]], salt: str) -> dict[str, str]:
    """Return a slow hash (scrypt) of a person's identities, with its salt and scheme.

    Who knows or guesses all identities exactly can confirm that the request is about them, and nobody else can read them.

    Args:
        identities: Each with `identity_type`, `identity_value` and `identity_format`; their order does not matter.
        salt: Another for each request, such as its id.
    """
    text = json.dumps(sorted(json.dumps(each, sort_keys=True) for each in identities))
    value = hashlib.scrypt(text.encode(), salt=salt.encode(), dklen=32, **_SCRYPT)
    return {"salted_hash": value.hex(), "salt": salt, "scheme": "scrypt-" + "-".join(map(str, _SCRYPT.values()))}
