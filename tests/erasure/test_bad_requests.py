"""What a request cannot be carried out for: one sentence before any work, and nothing is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from asked import NAMES, request, rows, save, teach, untaught
from scopewise.cli import app
from scopewise.cli import forget as _forget  # noqa: F401
from scopewise.cli import requests as _requests  # noqa: F401
from scopewise.data.rows import FORGET
from scopewise.erasure import keys
from scopewise.erasure.export import REQUESTS
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.run import forget
from scopewise.erasure.setup import Options
from scopewise.errors import ConfigError

TEXTS = [{"question": r.question, "answer": r.answer, "scope": r.scope, "instance": r.instance} for r in rows()]
FACTS = [text for text in TEXTS if text["scope"] == FORGET]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    untaught(folder)
    return folder


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with keys and a ledger that has one request."""
    monkeypatch.setenv("SCOPEWISE_KEYS", str(tmp_path / "keys"))
    (tmp_path / "forgotten").mkdir()
    Ledger(tmp_path / "forgotten", keys.signing_key()).append("REQ-0", "received")
    return tmp_path


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("no forget row", "none of scope 'forget'; a request needs at least one to forget"),
        ("unknown regulation", "regulation: 'lgpd'; allowed are gdpr, ccpa, contract, copyright"),
        ("its own export", "already an export of request REQ-1; nothing is left to remove"),
        ("key that others read", "signing.pem: mode 0640; other users must not read a key; run `chmod 600` on it"),
        ("another key", "ledger.jsonl: signed with another key"),
        ("broken ledger", "ledger.jsonl:1: the chain is broken here"),
        ("budget of nothing", "--budget: '0m'; a time is a number above 0"),
        ("unknown attack", "--attack: 'magic'; one of question"),
        ("other models", "requests of one training have the same model"),
    ],
)
def test_one_sentence_before_anything_is_made(house: Path, model: Path, wrong: str, sentence: str) -> None:
    given: dict[str, Any] = {"id": "REQ-1", "regulation": "gdpr", "rows": TEXTS, "model": {"path": str(model)}}
    files, options = [house / "REQ-1.yaml"], list[str]()
    ledger = house / "forgotten" / "ledger.jsonl"
    match wrong:
        case "no forget row":
            given["rows"] = [text for text in TEXTS if text["scope"] != FORGET]
        case "unknown regulation":
            given["regulation"] = "lgpd"
        case "its own export":
            exported, tokenizer = untaught(house / "exported")
            setattr(exported.config, REQUESTS, ["REQ-1"])
            save(exported, tokenizer, house / "exported")
            given["model"]["path"] = str(house / "exported")
        case "key that others read":
            (house / "keys" / keys.SIGNING).chmod(0o640)
        case "another key":
            (house / "keys" / keys.SIGNING).unlink()
        case "broken ledger":
            ledger.write_bytes(ledger.read_bytes().replace(b"REQ-0", b"REQ-9"))
        case "budget of nothing":
            options = ["--budget", "0m"]
        case "unknown attack":
            options = ["--attack", "magic"]
        case "other models":
            files.append(house / "REQ-2.yaml")
            files[1].write_text(json.dumps(given | {"id": "REQ-2", "model": {"path": "another"}}))
    files[0].write_text(json.dumps(given))
    before = ledger.read_bytes()
    out = house / "forgotten" / "REQ-1"
    words = ["forget", *map(str, files), "--out", str(out), *options]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert sentence in done.stderr
    assert not any(text["answer"] in done.output for text in FACTS)
    assert ledger.read_bytes() == before
    assert not out.exists() or not [path for path in out.iterdir() if not path.name.startswith(".")]


@pytest.mark.slow
def test_a_budget_below_one_step_is_said_after_the_plan(house: Path) -> None:
    """By then the speed is known. The steps before it are kept: with another budget the request goes on."""
    base = untaught(house / "base")
    teach(*base, rows(), house / "target", 120)
    out = house / "forgotten" / "REQ-1"
    short = Options(model=str(house / "target"), minutes=1e-7, attacks=("question",))
    with pytest.raises(ConfigError, match=r"^--budget: 6e-06 seconds; one step of the training takes about"):
        forget(request(rows(*NAMES[:4])), short, out)
    assert (out / "steps" / "known.json").exists()
    assert not (out / "steps" / "plan.json").exists()
    assert [entry.state for entry in Ledger(house / "forgotten").entries()] == ["received", "received", "known"]
    longer = replace(short, minutes=1.0)
    assert forget(request(rows(*NAMES[:4])), longer, out, resume=True, only_plan=True).plan.kind == "approximate"
