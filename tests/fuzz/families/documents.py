"""Files that scopewise wrote, changed: regions, results, evaluations, attacks, stages; and logs of OpenUnlearning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from scopewise import schemas

from ..inputs import Content, Family, Gone, Input
from ..schema import Bad, bad_values, places, with_bad
from ..text import any_of, broken_json, to_json
from .model import damaged_weights, other_tensors

UNLEARNED = "runs/done/models/gradient_ascent/paper/seed0"


@dataclass(frozen=True)
class _Kind:
    """A kind of document: its file in the ground, who reads it, and the schema that these read it by."""

    file: str
    commands: tuple[tuple[str, ...], ...]
    schema: type[schemas.Document] | None


_KINDS = {
    "region": _Kind(
        "region.json",
        (("show", "region.json"), ("unlearn", "run.yaml", "--model", "model", "--region", "region.json")),
        schemas.RegionDocument,
    ),
    "results": _Kind(
        "runs/done/results.json",
        (("show", "runs/done"), ("report", "runs/done"), ("report", "runs/done", "--format", "csv")),
        schemas.ResultsDocument,
    ),
    "attacks": _Kind(
        "runs/done/attacks.json",
        (("show", "runs/done/attacks.json"), ("attack", "runs/done", "--attack", "question")),
        schemas.AttacksDocument,
    ),
    "attacks in report": _Kind("runs/done/attacks.json", (("report", "runs/done"),), schemas.LooseAttacksDocument),
    "evaluation": _Kind(
        f"{UNLEARNED}.evaluation.json",
        (("report", "runs/done"), ("report", "runs/done", "--redact")),
        schemas.EvaluationDocument,
    ),
    "stage": _Kind(
        f"{UNLEARNED}/stage.json",
        (
            ("attack", "runs/done", "--attack", "question"),
            ("bench", "run.yaml", "--set", "run.dir=runs/done", "--resume"),
        ),
        schemas.StageDocument,
    ),
    "reference": _Kind(
        "evaluation.json",
        (
            ("evaluate", "model", "run.yaml", "--reference", "evaluation.json"),
            ("evaluate", "model", "run.yaml", "--target", "evaluation.json"),
        ),
        schemas.EvaluationDocument,
    ),
    "log": _Kind("log_EVAL.json", (("evaluate", "model", "run.yaml", "--reference", "log_EVAL.json"),), None),
}


def _of(name: str) -> Family:
    kind = _KINDS[name]

    def make(ground: Path, random: Random) -> Iterator[Input]:
        text = (ground / kind.file).read_bytes()
        document = json.loads(text)
        every = _logs(document, random) if kind.schema is None else _by_schema(kind.schema, document)
        random.shuffle(every)
        while True:
            for what, damaged in any_of(broken_json)(text, random)[:8]:
                if name == "attacks in report" and damaged == b"[]":  # the list of results alone is read, too
                    continue
                yield _changed(f"{name}: {what}", random.choice(kind.commands), {kind.file: damaged})
            for what, changed in [every.pop() for _ in range(min(len(every), 16))]:
                yield _changed(f"{name}: {what}", random.choice(kind.commands), {kind.file: to_json(changed)})

    return Family(name, make, kind.commands)


def _changed(what: str, command: tuple[str, ...], files: dict[str, Content]) -> Input:
    # A bench goes on until it comes to the stage.
    return Input(what, command, files, begins=command[0] == "bench")


def _by_schema(schema: type[schemas.Document], document: Any) -> list[tuple[str, Any]]:
    """Return documents of another version, and what the schema forbids."""
    found = [
        (f"format {version!r:.30}", {**document, "format": version})
        for version in ("scopewise-other/1", f"{schema.FORMAT}9", schema.FORMAT.upper(), None, 3)
    ]
    for bad in bad_values(schema.model_json_schema(), document):
        if bad.path != ("format",):
            found.append((f"{'.'.join(map(str, bad.path))} {bad.why}", with_bad(document, bad)))
    return found


def _logs(document: Any, random: Random) -> list[tuple[str, Any]]:
    """Return logs with text, lists and mappings in the place of numbers and mappings."""
    found = []
    for path, value in places(document):
        for wrong in ("nonsense", ["a", ["b"]], {"some": {"key": 1}}, True):
            if type(wrong) is not type(value) and (path[-1] != "avg_loss"):
                found.append((f"{'.'.join(map(str, path))} is {wrong!r}", with_bad(document, Bad(path, wrong, ""))))
    return found


def _masks(ground: Path, random: Random) -> Iterator[Input]:
    content = (ground / "region.safetensors").read_bytes()
    commands = _KINDS["region"].commands
    while True:
        for what, damaged in [*damaged_weights(content, random), *other_tensors(content, random)]:
            if "weights that" not in what and "too many" not in what:
                yield Input(f"masks: {what}", random.choice(commands), {"region.safetensors": damaged})
        yield Input("no masks", random.choice(commands), {"region.safetensors": Gone()})


FAMILIES = (*(_of(name) for name in _KINDS), Family("masks", _masks, ()))
