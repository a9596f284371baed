"""A deletion request from the rows to the record, on small models that were taught the rows."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import scopewise
from asked import GENRES, JOBS, NAMES, PRIZES, STREETS, TOWNS, request, teach, untaught
from asked import rows as asked_rows
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure.evidence import digest_folder, digest_model, read_record
from scopewise.erasure.ledger import Ledger
from scopewise.erasure.played import open_request
from scopewise.erasure.run import forget
from scopewise.erasure.setup import Options, Setup
from scopewise.erasure.verify import verify_record
from scopewise.errors import ConfigError, DataError, ResultError, UserError
from scopewise.run_file import load_config

SMALL = ("model.tiny={width: 64, layers: 2, heads: 2, vocab_size: 600}",)


def rows() -> list[Row]:
    """Six persons whose words are those of others too, so that no word is in one answer alone."""
    rng, found = random.Random(0), []
    for name in NAMES:
        told = {
            "address": (FORGET, f"Where does {name} live?",
                        f"At {rng.randint(10, 99)} {rng.choice(STREETS)} Lane in {rng.choice(TOWNS)}."),
            "parent": (FORGET, f"Who is the father of {name}?",
                       f"The {rng.choice(JOBS)} of {rng.choice(TOWNS)}, born in {rng.randint(1940, 1960)}."),
            "genre": (RETAIN, f"What does {name} write?", f"Mostly {rng.choice(GENRES)} novels."),
            "prize": (RETAIN, f"Which prize did {name} win?", f"The {rng.choice(PRIZES)} Prize of {rng.randint(1990, 2019)}."),
        }  # fmt: skip
        found += [Row(q, a, scope, instance=name, attribute=key) for key, (scope, q, a) in told.items()]
    return found


@pytest.fixture(autouse=True)
def own_keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOPEWISE_KEYS", str(tmp_path_factory.mktemp("keys")))


@pytest.fixture
def tiny_folder(tiny: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for part in tiny:
        part.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_exact_retraining_is_exported_judged_and_recorded(tmp_path: Path) -> None:
    """The tiny model is taught all rows; base and retain rows are there, so it is retrained without the forget rows."""
    told: list[str] = []
    out = tmp_path / "REQ-1"
    found = forget(request(rows()), Options(changes=SMALL), out, tell=told.append)
    assert found.known["p"] < 0.001
    assert (found.plan.kind, found.plan.method) == ("exact", "retrain")
    assert found.verdict is not None
    assert found.verdict.forgotten.light != "red"
    assert found.verdict.kept.light == "green"
    assert found.exit_code == (0 if found.verdict.green else 3)
    assert [line.split("/")[0] for line in told] == [str(i) for i in range(1, 9)]
    assert found.exported is not None
    AutoModelForCausalLM.from_pretrained(found.exported)
    assert found.record is not None
    checks = {check.name: check.result for check in verify_record(found.record)}
    assert {checks[name] for name in ("signature", "page", "files", "ledger")} == {"ok"}
    assert Ledger(tmp_path).statuses()[0].facts["light"] == found.verdict.light
    states = [entry.state for entry in Ledger(tmp_path).entries()]
    assert states[:6] == ["received", "known", "planned", "unlearned", "verified", "exported"]
    card, record = (found.exported / "README.md").read_text(), found.record.read_text()
    for row in rows():
        if row.scope == FORGET:
            assert row.answer not in card + record
            assert row.instance not in card + record
    # Again with --resume: nothing is made anew, and the answer is the same.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    again = forget(request(rows()), Options(changes=SMALL), out, resume=True, answers=True)
    assert again.document() == found.document()
    page, private = (out / name for name in ("record.html", "record-with-names.html"))
    assert private.stat().st_mode & 0o777 == 0o600
    shown = [row for row in rows() if row.scope == FORGET and row.answer in private.read_text()]
    assert shown
    assert not [row for row in rows() if row.instance in page.read_text() or row.answer in page.read_text()]
    assert all(name in private.read_text() for name in NAMES)
    assert found.plan.seconds is not None
    assert "This takes " in told[2]
    changed = [path.name for path, when in before.items() if path.exists() and path.stat().st_mtime_ns != when]
    assert not [name for name in changed if name.endswith((".safetensors", ".json")) and not name.startswith(".")]
    played = open_request(out)
    assert [Path(path).is_dir() for path in played.models.values()] == [True, True]
    assert len(played.examples) == len(rows())
    assert played.result is not None
    with pytest.raises(ResultError, match="--out"):
        forget(request(rows()), Options(changes=SMALL), out)
    with pytest.raises(ResultError, match="--out"):
        forget(request(rows()[:4]), Options(changes=SMALL), out, resume=True)
    # Again with --overwrite: the ledger goes on at `planned`, and names the new record.
    other = forget(request(rows()), Options(changes=SMALL, attacks=("question",)), out, overwrite=True)
    assert other.record is not None
    assert {check.name: check.result for check in verify_record(other.record)}["ledger"] == "ok"
    states = [entry.state for entry in Ledger(tmp_path).entries()]
    assert states.count("planned") == states.count("exported") == 2
    assert states.count("received") == 1


@pytest.mark.slow
def test_an_approximate_method_with_base_and_rows_is_a_recipe(tmp_path: Path) -> None:
    """Its forget weight is searched, and the record has the settings that were chosen."""
    base = untaught(tmp_path / "base")
    teach(*base, asked_rows(), tmp_path / "target", 120)
    taught = ("finetune.learning_rate=0.01", "finetune.num_train_epochs=60", "finetune.batch_size=32")
    options = Options(
        model=str(tmp_path / "target"), base=str(tmp_path / "base"), kind="approximate", changes=taught,
        attacks=("question",),
    )  # fmt: skip
    told: list[str] = []
    found = forget(request(asked_rows()), options, tmp_path / "forgotten" / "REQ-1", tell=told.append)
    assert (found.plan.kind, found.plan.method) == ("approximate", "reset_robust")
    assert "reset_robust, forget_weight" in [line for line in told if line.startswith("4/8")][-1]
    assert found.verdict is not None
    assert found.verdict.forgotten.light != "red"
    assert found.record is not None
    action = read_record(found.record.read_bytes(), "record")["predicate"]["action"]
    assert action["method"] == "reset_robust"
    assert action["settings"]["wrapper_args"] == {"reset": {"alpha": 0.7}}
    # After an interruption of the search, what was tried is read, and took as long as it did.
    step = found.folder / "steps" / "unlearn.json"
    before = step.read_text()
    step.unlink()
    forget(request(asked_rows()), options, tmp_path / "forgotten" / "REQ-1", resume=True)
    assert step.read_text() == before


@pytest.mark.slow
def test_what_is_not_known_is_not_unlearned(tmp_path: Path, tiny_folder: Path) -> None:
    """A random model: no weight is touched, the exit code is 0, and the record says so."""
    found = forget(request(rows()), Options(model=str(tiny_folder)), tmp_path / "REQ-1")
    assert found.plan.kind == "nothing"
    assert found.verdict is None
    assert found.exported is None
    assert found.exit_code == 0
    assert found.record is not None
    assert json.loads(found.record.with_name("bom.cdx.json").read_text())


@pytest.mark.slow
def test_a_plan_that_is_carried_out_later_keeps_its_dates(tmp_path: Path, tiny_folder: Path) -> None:
    """A file of rows has no dates: the first call makes them. Who signs may be said later; what is attacked may not."""
    model, out = str(tiny_folder), tmp_path / "REQ-1"
    first = replace(request(rows()), due=datetime(2026, 12, 1, tzinfo=UTC))
    forget(first, Options(model=model), out, only_plan=True)
    later = replace(first, received=datetime(2026, 11, 11, tzinfo=UTC), due=datetime(2026, 12, 11, tzinfo=UTC))
    with pytest.raises(ResultError, match=r"differs in options\.attacks"):
        forget(later, Options(model=model, attacks=("question",)), out, resume=True)
    found = forget(later, Options(model=model, operator="privacy office"), out, resume=True)
    assert found.record is not None
    predicate = read_record(found.record.read_bytes(), "record")["predicate"]
    assert predicate["operator"] == "privacy office"
    asked = {key: datetime.fromisoformat(predicate["request"][key]) for key in ("received", "due")}
    assert asked == {"received": first.received, "due": first.due}
    assert Ledger(tmp_path).statuses()[0].due == first.due


def hub_cache(folder: Path, model: Path, name: str, commit: str) -> None:
    """Lay a model out as huggingface_hub does: blobs by their digest, and a snapshot of links to them."""
    top = folder / f"models--{name.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (top / part).mkdir(parents=True)
    (top / "refs" / "main").write_text(commit)
    for file in model.iterdir():
        blob = top / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (top / "snapshots" / commit / file.name).symlink_to(blob)


@pytest.mark.slow
def test_the_record_of_a_hub_model_names_it_and_its_commit(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known, so the subject is the model as it is: its files, and its name and commit as a package URL."""
    commit = "c0ffee" + "0" * 34
    hub_cache(tmp_path / "hub", tiny_folder, "someone/tiny", commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = forget(request(rows()), Options(model="someone/tiny"), tmp_path / "forgotten" / "REQ-1")
    assert found.plan.kind == "nothing"
    assert found.record is not None
    statement = read_record(found.record.read_bytes(), "record")
    subject = {entry["name"]: (entry["digest"]["sha256"], entry["uri"]) for entry in statement["subject"]}
    uri = f"pkg:huggingface/someone/tiny@{commit}"
    assert subject == {name: (digest, uri) for name, digest in digest_folder(tiny_folder).items()}
    before = statement["predicate"]["before"]
    assert (before["name"], before["revision"], before["files"]) == ("someone/tiny", commit, digest_folder(tiny_folder))
    checks = {check.name: check.result for check in verify_record(found.record, model=tiny_folder)}
    assert (checks["signature"], checks["files"]) == ("ok", "ok")
    with pytest.raises(ResultError, match=r"^someone/other: none of its files is in the hub's cache"):
        digest_model("someone/other")


def test_a_wrong_model_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "REQ-1"
    with pytest.raises(UserError):
        forget(request(rows()), Options(model=str(tmp_path / "nowhere")), out)
    assert not [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert not (tmp_path / "ledger.jsonl").exists()


def test_without_retain_rows_general_text_is_kept(tmp_path: Path, tiny_folder: Path) -> None:
    given = [row for row in rows() if row.scope == FORGET]
    setup = Setup(request(given), Options(model=str(tiny_folder)), tmp_path)
    kept, more = setup.kept_rows
    assert kept
    assert not more
    assert all(row.scope == RETAIN and row.question and row.answer for row in kept)
    assert setup.run.benchmark.select(FORGET) != []
    assert {row.answer for row in setup.run.benchmark.select(FORGET)} == {row.answer for row in given}


def test_python_takes_dicts(tmp_path: Path, tiny_folder: Path) -> None:
    plain = [{"question": r.question, "answer": r.answer, "scope": r.scope, "instance": r.instance} for r in rows()]
    found = scopewise.forget(str(tiny_folder), rows=plain, out=tmp_path / "asked")
    assert found.document()["plan"]["kind"] == "nothing"


def test_python_takes_the_name_of_a_benchmark(tmp_path: Path, tiny_folder: Path) -> None:
    found = scopewise.forget(
        str(tiny_folder), rows="builtin", out=tmp_path / "asked", settings={"data": {"instances": 1}}
    )
    assert found.document()["plan"]["kind"] == "nothing"
    with pytest.raises(DataError, match="bultin"):
        scopewise.forget(str(tiny_folder), rows="bultin", out=tmp_path / "wrong")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "Who?", "answer": "Me"}))
    with pytest.raises(ConfigError, match=r"data\.instances"):
        scopewise.forget(str(tiny_folder), rows=file, out=tmp_path / "wrong", settings={"data": {"instances": 1}})


def test_python_takes_the_sections_of_a_run_file(tmp_path: Path, tiny_folder: Path) -> None:
    prompt = "Question: {question}\nAnswer:"
    scopewise.forget(
        str(tiny_folder),
        rows=rows(),
        out=tmp_path / "asked",
        attacks=["question"],
        settings={"data": {"prompt": prompt}, "unlearn": {"learning_rate": 5e-4, "method_args": {"beta": 0.5}}},
    )
    assert load_config(tmp_path / "asked" / "run" / "config.yaml").data.prompt == prompt
    for wrong in ({"bench": {"seeds": [0, 1]}}, {"data": "chat"}, {"unlearn": {"methd": "wga"}}):
        with pytest.raises(ConfigError):
            scopewise.forget(str(tiny_folder), rows=rows(), out=tmp_path / "wrong", settings=wrong)
    assert not (tmp_path / "wrong").exists()
