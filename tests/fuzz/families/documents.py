"""Files that scopewise wrote, changed: regions, results, evaluations, attacks, stages; and logs of OpenUnlearning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..inputs import Family, Gone, Input
from ..schema import MISSING, Bad, places, with_bad
from ..text import any_of, broken_json, to_json
from .model import damaged_weights, other_tensors

_UNLEARNED = "runs/done/models/gradient_ascent/paper/seed0"
_READ_BY: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "region": ("region.json", (("show", "region.json"), ("unlearn", "run.yaml", "--region", "region.json"))),
    "results": (
        "runs/done/results.json",
        (
            ("show", "runs/done"),
            ("report", "runs/done"),
            ("report", "runs/done", "--format", "csv"),
            ("show", "runs/done/results.json"),
        ),
    ),
    "attacks": (
        "runs/done/attacks.json",
        (("show", "runs/done/attacks.json"), ("report", "runs/done"), ("attack", "runs/done", "--attack", "question")),
    ),
    "evaluation": (
        f"{_UNLEARNED}.evaluation.json",
        (("report", "runs/done"), ("report", "runs/done", "--redact")),
    ),
    "stage": (f"{_UNLEARNED}/stage.json", (("attack", "runs/done", "--attack", "question"),)),
    "reference": (
        "evaluation.json",
        (
            ("evaluate", "model", "run.yaml", "--reference", "evaluation.json"),
            ("evaluate", "model", "run.yaml", "--target", "evaluation.json"),
        ),
    ),
    "log": ("log_EVAL.json", (("evaluate", "model", "run.yaml", "--reference", "log_EVAL.json"),)),
}


def _of(name: str) -> Family:
    file, commands = _READ_BY[name]

    def make(ground: Path, random: Random) -> Iterator[Input]:
        text = (ground / file).read_bytes()
        document = json.loads(text)
        while True:
            for what, damaged in any_of(broken_json)(text, random)[:8]:
                yield Input(f"{name}: {what}", random.choice(commands), {file: damaged})
            for what, changed in _changed(name, document, random):
                yield Input(f"{name}: {what}", random.choice(commands), {file: to_json(changed)})

    return Family(name, make, commands)


def _changed(name: str, document: Any, random: Random) -> Iterator[tuple[str, Any]]:
    """Return documents of another structure: another version, a key missing, a value of another kind."""
    if "format" in document:
        for version in ("scopewise-other/1", document["format"] + "9", None, 3, MISSING):
            yield f"format {version!r:.20}", with_bad(document, Bad(("format",), version, ""))
    for _ in range(8):
        path, value = random.choice([(path, value) for path, value in places(document) if _decided(name, path)])
        wrong = random.choice([v for v in _OTHER if not isinstance(v, type(value)) and type(v) is not type(value)])
        yield f"{'.'.join(map(str, path))} is {wrong!r:.30}", with_bad(document, Bad(path, wrong, ""))
    path, value = random.choice([(path, value) for path, value in places(document) if len(path) == 1])
    if name != "log":
        yield f"no {path[0]}", with_bad(document, Bad(path, MISSING, ""))


_OTHER: list[Any] = ["nonsense", ["a", ["b"]], {"some": {"key": 1}}, "lone \ud800"]


def _decided(name: str, path: tuple[str | int, ...]) -> bool:
    """Return whether what stands at a path is of one kind: not what a manifest says of machine and packages."""
    return not {"manifest", "origin", "config", "settings", "inputs", "note", "notes"} & set(path)


def _masks(ground: Path, random: Random) -> Iterator[Input]:
    content = (ground / "region.safetensors").read_bytes()
    commands = _READ_BY["region"][1]
    while True:
        for what, damaged in [*damaged_weights(content, random), *other_tensors(content, random)]:
            if "weights that" not in what and "too many" not in what:
                yield Input(f"masks: {what}", random.choice(commands), {"region.safetensors": damaged})
        yield Input("no masks", random.choice(commands), {"region.safetensors": Gone()})


FAMILIES = (*(_of(name) for name in _READ_BY), Family("masks", _masks, ()))
