"""Adapter folders: configs that PEFT's schema forbids, and weights that are not the adapter's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..inputs import Content, Family, Gone, Input
from ..schema import HUGE
from ..text import any_of, broken_json, to_json
from .model import damaged_weights, other_tensors

_READ = (
    ("evaluate", "adapter", "run.yaml"),
    ("unlearn", "run.yaml", "--model", "adapter"),
    ("localize", "run.yaml", "--model", "adapter"),
    ("attack", "runs/done", "--target", "adapter", "--overwrite"),
)
_WRONG: dict[str, list[Any]] = {
    "peft_type": ["LORAA", "", None, 3, "PROMPT_TUNING"],
    "task_type": ["CAUSAL", 3],
    "base_model_name_or_path": [
        None,
        3,
        "",
        "./gone",
        "rows.jsonl",
        "nobody/nothing",
        ["model"],
        "x\0y",
        "\x1b[31mred",
    ],
    "r": [0, -1, 1.5, "2", "x", [2], HUGE, 7],
    "lora_alpha": ["x", [1], {}],
    "lora_dropout": [-0.5, 1.5, "x", [0]],
    "target_modules": [[], ["zzz_proj"], 3, "[", {"a": 1}, [3], "zzz"],
    "bias": ["some", 3, "x"],
    "modules_to_save": [3, [3]],
    "rank_pattern": [3, "x", {"up_proj": 0}, {"up_proj": "x"}],
    "alpha_pattern": [3, "x", {"up_proj": "x"}],
    "init_lora_weights": ["nonsense", 3, [1]],
}
"""Fields of a LoRA config and what they cannot be; `r: 7` is not the rank of the weights."""


def _make(ground: Path, random: Random) -> Iterator[Input]:
    text = (ground / "adapter/adapter_config.json").read_bytes()
    good = json.loads(text)
    content = (ground / "adapter/adapter_model.safetensors").read_bytes()
    while True:
        for key, values in random.sample(list(_WRONG.items()), 8):
            value = random.choice(values)
            shown = "huge" if value is HUGE else repr(value)
            yield _adapter(f"{key} is {shown}", {"adapter/adapter_config.json": to_json({**good, key: value})}, random)
        for what, damaged in any_of(broken_json)(text, random)[:4]:
            if "the value" in what:  # which the library's reader takes, in a key that nobody reads
                continue
            yield _adapter(f"config: {what}", {"adapter/adapter_config.json": damaged}, random)
        for key in ("peft_type", "base_model_name_or_path"):
            less = {k: v for k, v in good.items() if k != key}
            yield _adapter(f"no {key}", {"adapter/adapter_config.json": to_json(less)}, random)
        wrong = [*damaged_weights(content, random), *other_tensors(content, random)]
        for what, damaged in random.sample(wrong, 8):
            yield _adapter(f"weights: {what}", {"adapter/adapter_model.safetensors": damaged}, random)
        yield _adapter("no weights", {"adapter/adapter_model.safetensors": Gone()}, random)
        pickled: dict[str, Content] = {
            "adapter/adapter_model.safetensors": Gone(),
            "adapter/adapter_model.bin": b"\x80\x04N.",
        }
        yield _adapter("pickled weights alone", pickled, random)


def _adapter(what: str, files: dict[str, Content], random: Random) -> Input:
    return Input(f"adapter: {what}", random.choice(_READ), files)


FAMILIES = (Family("adapter", _make, _READ),)
