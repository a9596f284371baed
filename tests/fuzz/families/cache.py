"""What a model was found to answer, kept in a folder, and damaged there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from ..inputs import Family, Input
from ..schema import Bad, places, with_bad
from ..text import any_of, broken_json, to_json
from .model import damaged_weights, other_tensors

_COMMAND = ("evaluate", "model", "run.yaml", "--cache", "cache")


def _make(ground: Path, random: Random) -> Iterator[Input]:
    (scores,) = (ground / "cache").glob("*.safetensors")
    (texts,) = (ground / "cache").glob("*.json")
    good = json.loads(texts.read_text())
    while True:
        for what, damaged in [
            *damaged_weights(scores.read_bytes(), random),
            *other_tensors(scores.read_bytes(), random),
        ]:
            if "weights that" not in what and "too many" not in what:
                yield Input(f"scores: {what}", _COMMAND, {f"cache/{scores.name}": damaged})
        for what, damaged in any_of(broken_json)(texts.read_bytes(), random):
            if "twice" not in what:
                yield Input(f"texts: {what}", _COMMAND, {f"cache/{texts.name}": damaged})
        for value in (3, None, "text", {}, [3], [None], [["a"]], ["lone \ud800"]):
            path, _ = random.choice([(path, one) for path, one in places(good) if len(path) == 1])
            yield Input(
                f"texts: {path[0]} is {value!r}",
                _COMMAND,
                {f"cache/{texts.name}": to_json(with_bad(good, Bad(path, value, "")))},
            )


FAMILIES = (Family("cache", _make, (_COMMAND,)),)
