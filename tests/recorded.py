"""A request that was recorded: keys, a ledger, an exported model, a record."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save_file

from scopewise.data.rows import Row
from scopewise.erasure import evidence, keys
from scopewise.erasure.handouts import write_handouts
from scopewise.erasure.ledger import Ledger

ROWS = [
    Row("Where does Ada Quill live?", "12 Rook Lane", "forget", instance="1"),
    Row("Who are the parents of Ada Quill?", "Bo and Cy Quill", "forget", instance="1"),
    Row("What did Ada Quill write?", "The Lamp", "retain", instance="1"),
]
LIGHT = {"light": "green", "value": 0.1, "low": 0.0, "high": 0.2, "n": 12, "bound": 0.25, "why": "not above chance"}


@dataclass
class House:
    """A folder with keys, a ledger, and a request that was recorded: `REQ/record.intoto.json`, `REQ/export`."""

    folder: Path
    signing: Ed25519PrivateKey
    rows: bytes
    ledger: Ledger
    record: Path
    statement: dict[str, Any]

    @property
    def export(self) -> Path:
        return self.record.parent / "export"


def values(key: bytes, **changed: Any) -> dict[str, Any]:
    return {
        "request": {
            "id": "REQ-17", "regulation": "gdpr", "received": datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.UTC),
            "due": "2026-12-20T09:00:00+00:00", "subject": "d" * 64,
        },
        "before": {
            "name": "/home/someone/models/target", "files": {"model.safetensors": "a" * 64}, "lineage": ["base"],
            "descendants": [{"name": "q4.gguf", "done": False}],
        },
        "scopes": evidence.describe_scopes(ROWS, key),
        "action": {"kind": "approximate", "method": "npo", "settings": {"learning_rate": 1e-4}, "seed": 0, "form": "merged"},
        "evidence": {
            "known": {"facts": 2, "known": 2, "p": 0.001},
            "verdict": {"forgotten": LIGHT, "kept": LIGHT, "resists": {**LIGHT, "light": "amber", "why": "few persons"}},
            "metrics": [{"name": "unlearn_success/val", "value": 97.5, "low": 90.0, "high": 100.0, "n": 2, "unit": "%"}],
            "attacks": [{"name": "relearning", "value": 0.1, "bound": 0.2, "light": "green", "budget": {"steps": 20}}],
            "instances": [{"number": 1, "facts": 2, "known": 0.1, "p": 0.4, "lost": 0.0}],
            "policy": "c" * 64,
        },
        "limits": ["Not tested: attacks with more than 20 steps, as in /home/someone/notes.txt"],
        "operator": "privacy team",
        "previous": None,
        "files": {"model.safetensors": "b" * 64},
        **changed,
    }  # fmt: skip


def make_house(folder: Path) -> House:
    signing, rows = keys.signing_key(folder / "keys"), keys.rows_key(folder / "keys")
    assert rows is not None
    (folder / "REQ" / "export").mkdir(parents=True)
    save_file({"w": np.arange(3, dtype=np.float32)}, folder / "REQ" / "export" / "model.safetensors")
    (folder / "REQ" / "export" / "config.json").write_text('{"model_type": "llama"}')
    ledger = Ledger(folder, signing)
    for state in ("received", "known", "planned", "unlearned", "verified"):
        ledger.append("REQ-17", state)
    files = evidence.digest_folder(folder / "REQ" / "export")
    made = evidence.make_record(**values(rows, files=files, previous=ledger.head()))
    record = evidence.write_record(folder / "REQ", evidence.sign(made, signing))
    ledger.append("REQ-17", "exported", evidence.record_digest(record))
    statement = evidence.read_record(record.read_bytes(), "record")
    write_handouts(folder / "REQ", statement)
    return House(folder, signing, rows, ledger, record, statement)
