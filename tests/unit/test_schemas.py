"""The structure of what a run writes: a wrong one is refused with file and key, another version too, older ones are read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from scopewise import schemas
from scopewise.errors import ResultError
from scopewise.evaluation import read_evaluation
from scopewise.region import Entry, Mask, Region
from scopewise.training.progress import fault_of

ORIGIN = {
    "scopewise": "0.1.0", "commit": None, "config_hash": "c", "data_hash": "d", "date": "2026-01-01T00:00:00+00:00",
    "python": "3.11", "packages": {"torch": "2"}, "platform": "p", "processor": "q", "cores": 2,
}  # fmt: skip
INTERVAL = {"value": 1.0, "low": 0.0, "high": 2.0}
COMPARISON = {
    "method": "npo", "protocol": None, "split": "val", "seeds": 3, "instances": None,
    "success": {"unlearn_success": INTERVAL}, "oracle_gap": None, "differences": {}, "gap_differences": {"dpo": INTERVAL},
}  # fmt: skip
LEAD = {
    "protocol": "paper", "by": "oracle_gap", "best": "npo", "leads": False, "reason": "close", "seeds": 3, "instances": 9,
    "rivals": {"dpo": {**INTERVAL, "p_value": 0.5}},
}  # fmt: skip
COST = {"seconds_per_step": 0.1, "steps": 3, "seconds": 1.0, "localization": {"tokens": 3, "tokens_per_second": None}}
ROW = {
    "model": "unlearned", "method": "npo", "localizer": "all", "protocol": "paper", "seed": 0, "settings": {},
    "region_fraction": 1.0, "metrics": {"unlearn_success/val": 50.0, "x/val": None}, "skipped": {}, "cost": COST,
    "probes": [{"step": 0, "unlearn_success": 1.0, "retention_success": 2.0}],
    "curve": [{"step": 10, "loss": -1.5, "grad_norm": 1.0, "learning_rate": 1e-4}], "path": "models/npo/paper/seed0",
}  # fmt: skip
VALUE = {"value": 0.5, "per_row": [0.5, None], "skipped": ["why"], "low": None, "high": None, "note": ""}
ANSWER = {
    "question": "q", "answer": "a", "scope": "forget", "split": "val", "instance": "", "attribute": "",
    "tokens": ["a"], "probabilities": [0.5], "generated": None,
}  # fmt: skip
ATTACK = {
    "attack": "question", "model": "m", "method": "npo", "protocol": None, "seed": 0, "leakage": 0.1, "low": None,
    "high": None, "verdict": "holds", "needs_target": False, "worst": [{"question": "q"}], "notes": [],
    "cost": {"seconds": 1.0},
}  # fmt: skip
ENTRY = {"name": "layers.0.weight", "parameters": 16, "chosen": True, "module": "layers.0", "selected": 4}
DOCUMENTS: dict[type[schemas.Document], dict[str, Any]] = {
    schemas.StageDocument: {"inputs": {"seed": 0}, "origin": ORIGIN, **{k: ROW[k] for k in ("cost", "curve", "probes")}},
    schemas.EvaluationDocument: {"values": {"p/val": VALUE}, "answers": [ANSWER], "inputs": {}, "origin": ORIGIN},
    schemas.ResultsDocument: {
        "complete": True, "manifest": ORIGIN, "config": {}, "rows": [ROW], "comparisons": [COMPARISON],
        "leads": [LEAD], "tuning": {"npo": [{"learning_rate": 1e-4, "chosen": True}]},
    },
    schemas.AttacksDocument: {
        "manifest": ORIGIN, "inputs": {"attack": {"suite": "quick"}}, "models": {"m": "h"}, "threshold": 0.1,
        "attacks": ["question"], "results": [ATTACK],
    },
    schemas.RowValuesDocument: {
        "split": "val", "instances": {"p/val": [0, 1]},
        "models": [
            {"method": "npo", "protocol": None, "seed": 0, "target_seed": 0, "values": {"p/val": [0.5, None]}},
        ],
    },
    schemas.PieceDocument: {
        "inputs": {}, "reason": None, "seconds": 1.0, "rows": [0], "signals": {"s": [0.5, None]},
        "texts": {"s": [None, "t"]}, "notes": [],
    },
    schemas.TrialDocument: {"unlearn_success": 1.0, "retention_success": 2.0, "inputs": {}},
    schemas.CostDocument: {"step_seconds": [0.1], "seconds": 1.0, "peak_memory_bytes": 5, "tokens": 5, "operations": 1e9},
    schemas.ProbesDocument: {"probes": ROW["probes"]},
    schemas.StateDocument: {"unlogged_losses": [0.5], "unlogged_steps": 2, "dual": {"multiplier": 1.0, "budget": 0.5}},
    schemas.RegionDocument: {
        "localizer": "gradient", "settings": {}, "chosen_parameters": 4, "chosen_fraction": 0.25, "seconds": 1.0,
        "cost": None, "origin": None, "masks": {}, "entries": [ENTRY],
    },
}  # fmt: skip
NAMES = [schema.__name__ for schema in DOCUMENTS]


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def leaves(document: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all that stands in a document, lists and mappings too."""
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place, *(deeper for key, value in inside for deeper in leaves(value, (*place, key)))]


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    made = copy.deepcopy(document)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


@pytest.mark.parametrize("schema", DOCUMENTS, ids=NAMES)
def test_what_is_written_is_read_and_another_version_is_refused(schema: type[schemas.Document], tmp_path: Path) -> None:
    document = {"format": schema.FORMAT, **DOCUMENTS[schema]}
    assert schemas.read(written(tmp_path / "x.json", document), schema) == document
    if schema not in (schemas.RegionDocument, schemas.ResultsDocument):  # region files have always had one
        assert schemas.read(written(tmp_path / "x.json", DOCUMENTS[schema]), schema) == DOCUMENTS[schema]
    with pytest.raises(ResultError, match=r"x\.json: format 'scopewise-other/9'; "):
        schemas.read(written(tmp_path / "x.json", {**document, "format": "scopewise-other/9"}), schema)


@pytest.mark.parametrize("made", [{}, {"format": "scopewise-results/2"}])
def test_results_of_earlier_versions_lose_their_intervals(made: dict[str, str], tmp_path: Path) -> None:
    """Their intervals were too narrow, and their gaps let seeds on either side of the oracle cancel."""
    document = {**DOCUMENTS[schemas.ResultsDocument], **made}
    found = schemas.read(written(tmp_path / "x.json", document), schemas.ResultsDocument)
    assert (found["format"], found["comparisons"], found["leads"]) == (schemas.ResultsDocument.FORMAT, [], [])
    assert found["rows"] == document["rows"]


@pytest.mark.parametrize("schema", DOCUMENTS, ids=NAMES)
def test_every_place_that_holds_something_else_is_named(schema: type[schemas.Document], tmp_path: Path) -> None:
    """Each value of the document by itself is replaced by one of another kind: the sentence has file and key, no content."""
    document = {"format": schema.FORMAT, **DOCUMENTS[schema]}
    free = {"settings", "inputs", "config", "worst", "data_hash", "python", "platform", "needs_target", "split"}
    tried = 0
    for place in leaves(document):
        if free & set(place) or place == ("format",):
            continue
        for wrong in ("SECRET" if not isinstance(inner(document, place), str) else 5, [["SECRET"]], True):
            here = inner(document, place)
            if (here is None and wrong == "SECRET") or (isinstance(here, bool) and wrong is True):
                continue  # it may be what it was
            if "tuning" in place and wrong is True and len(place) == 4:
                continue  # a trial holds numbers and whether it was chosen
            with pytest.raises(ResultError) as raised:
                schemas.read(written(tmp_path / "x.json", changed(document, place, wrong)), schema)
            sentence = str(raised.value)
            assert sentence.startswith(f"{tmp_path / 'x.json'}: ")
            assert "SECRET" not in sentence
            if place:
                assert str(place[0]) in sentence
            tried += 1
    assert tried >= 8


def inner(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        document = document[key]
    return document


@pytest.mark.parametrize("schema", DOCUMENTS, ids=NAMES)
def test_what_is_missing_is_named(schema: type[schemas.Document], tmp_path: Path) -> None:
    for key, field in schema.model_fields.items():
        if field.is_required() and key != "format":
            document = {"format": schema.FORMAT, **DOCUMENTS[schema]}
            del document[key]
            with pytest.raises(ResultError, match=rf"x\.json: {key}; "):
                schemas.read(written(tmp_path / "x.json", document), schema)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("entries", 0, "chosen"), "no"), (("entries", 0, "chosen"), 1), (("entries", 0, "parameters"), -16),
        (("entries", 0, "parameters"), True), (("entries", 0, "selected"), 17), (("entries", 0, "selected"), -1),
        (("entries", 0, "choosen"), False), (("chosen_fraction",), -16.0), (("chosen_fraction",), 1.5),
        (("entries",), [ENTRY, ENTRY]), (("masks", "layers.0.weight"), [4, 5]), (("masks", "other"), [4, 4]),
        (("masks", "sideways:layers.0.weight"), [4, 4]), (("extra",), 1), (("format",), "scopewise-region/1"),
    ],
)  # fmt: skip
def test_a_region_that_was_edited_wrongly_is_refused(place: tuple[Any, ...], wrong: Any, tmp_path: Path) -> None:
    document = {"format": schemas.RegionDocument.FORMAT, **DOCUMENTS[schemas.RegionDocument]}
    save_file({"layers.0.weight": np.zeros(2, np.uint8)}, tmp_path / "r.safetensors")
    assert Region.load(written(tmp_path / "r.json", document)).fraction == 0.25  # 4 of 16
    with pytest.raises(ResultError, match=r"r\.json: "):
        Region.load(written(tmp_path / "r.json", changed(document, place, wrong)))


@pytest.mark.parametrize("kind", ["cut off", "junk", "empty", "another dtype", "too short", "another name", "none"])
def test_masks_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    entry = Entry("layers.0.weight", 16, True, "layers.0", selected=4)
    path, beside = tmp_path / "r.json", tmp_path / "r.safetensors"
    Region("gradient", {}, (entry,), masks={"layers.0.weight": Mask.pack(mask)}).save(path)
    found = Region.load(path).mask("layers.0.weight")
    assert found is not None
    assert found.tolist() == mask.tolist()
    content = beside.read_bytes()
    beside.unlink()
    if kind == "cut off":
        beside.write_bytes(content[:-1])
    elif kind == "junk":
        beside.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif kind == "empty":
        beside.write_bytes(b"")
    elif kind != "none":
        bits = {"another dtype": np.zeros(2, np.float32), "too short": np.zeros(1, np.uint8)}.get(
            kind, np.zeros(2, np.uint8)
        )
        save_file({"x" if kind == "another name" else "layers.0.weight": bits}, beside)
    with pytest.raises(ResultError, match=r"r\.safetensors: "):
        Region.load(path)


def test_an_evaluation_is_read_with_and_without_a_format(tmp_path: Path) -> None:
    for format_ in ({}, {"format": schemas.EvaluationDocument.FORMAT}):
        document = {**format_, **DOCUMENTS[schemas.EvaluationDocument]}
        assert read_evaluation(written(tmp_path / "e.json", document))["p/val"].per_row == (0.5, None)


def test_a_checkpoint_that_cannot_be_read_is_no_checkpoint(tmp_path: Path) -> None:
    """So a resumed training takes the one before it, or begins anew, and never fails on it."""
    kept = {
        "cost.json": {"format": schemas.CostDocument.FORMAT, **DOCUMENTS[schemas.CostDocument]},
        "probes.json": {"format": schemas.ProbesDocument.FORMAT, **DOCUMENTS[schemas.ProbesDocument]},
        "unlearning_state.json": {"format": schemas.StateDocument.FORMAT, **DOCUMENTS[schemas.StateDocument]},
    }
    for name, document in kept.items():
        written(tmp_path / name, document)
    save_file({"x": np.zeros(2, np.uint8)}, tmp_path / "adapter_model.safetensors")
    written(tmp_path / "trainer_state.json", {"global_step": 3})
    assert fault_of(tmp_path) is None
    for name, document in kept.items():
        for wrong in ({k: v for k, v in document.items() if k != "format"}, {**document, "format": "other"}, [], 5):
            written(tmp_path / name, wrong)
            assert fault_of(tmp_path), (name, wrong)
        written(tmp_path / name, document)
    weights = (tmp_path / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(weights[:-1])
    assert fault_of(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    (tmp_path / "optimizer.pt").write_bytes(b"junk")
    assert fault_of(tmp_path)
    (tmp_path / "optimizer.pt").unlink()
    (tmp_path / "cost.json").unlink()
    assert fault_of(tmp_path)
