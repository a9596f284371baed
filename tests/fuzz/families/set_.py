"""`--set` expressions: of values that the schema forbids, of keys that lead nowhere, and of no grammar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from scopewise.config import RunConfig

from ..inputs import Family, Input
from ..schema import HUGE, MISSING, misspelt
from .run_file import COMMANDS, bad_settings, command


def in_flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if value is HUGE:
        return "9" * 5000
    return yaml.safe_dump([value], default_flow_style=True, width=10**9).strip()[1:-1]


def leaves(model: Any = RunConfig, prefix: str = "") -> Iterator[str]:
    """Return the dotted names of all settings that are no section."""
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _expressions(random: Random) -> Iterator[tuple[str, str]]:
    names = list(leaves())
    plain = [
        name
        for name in names
        if name not in ("bench.settings", "bench.paper", "unlearn.method_args", "bench.tune.knobs")
    ]
    plain = [name for name in plain if name not in ("evaluate.parts", "evaluate.ability.shots")]  # keys are data
    name = random.choice(plain)
    section = name.rpartition(".")[0]
    yield "no value", name
    yield "no section", f"{name.rpartition('.')[2]}=1"
    yield "no key", f"{section}.=1"
    yield "an empty part", name.replace(".", "..", 1) + "=1"
    yield "nothing before =", "=1"
    yield "a key below a leaf", f"{name}.{random.choice(['more', '0', 'a.b'])}=1"
    yield "a key that is none", f"{section}.{misspelt(name.rpartition('.')[2])}=1"
    yield "a section that is none", f"{misspelt(name.partition('.')[0])}.{name.partition('.')[2]}=1"
    yield "another case", f"{name.upper()}=1"
    yield "a section as a value", f"{name.partition('.')[0]}.{name.partition('.')[0]}={{a: 1}}"
    yield "a control character in the key", f"{section}.\x1b[31m{name}=1"
    yield "a control character in the value", f"{name}=\x1b]0;title\x07"
    yield "bytes that are no text", f"{name}=\udcff\udcfe"
    value = random.choice(
        ["[1", "{a: 1", "'open", '"open', "*nowhere", "!!int x", "2024-13-45", "!!python/name:os.system", "a: b: c"]
        + ["@at", "`tick", "%percent", "&a [*a]", "{a: 1, a: 2}", "[" * 5000, "9" * 5000, "!tag 1", "? [1]", "- a\n-b"]
    )
    yield (
        "a value that is no YAML of its kind",
        f"{random.choice(['finetune.num_train_epochs', 'lora.r', 'run.seed'])}={value}",
    )


def _make(ground: Path, random: Random) -> Iterator[Input]:
    every = [bad for bad in bad_settings() if bad.value is not MISSING and len(bad.path) > 1]
    every = [bad for bad in every if all(isinstance(key, str) and "\x1b" not in key for key in bad.path)]
    random.shuffle(every)
    while every:
        for what, expression in _expressions(random):
            yield Input(what, (*command(random), "--set", expression))
        for bad in [every.pop() for _ in range(min(10, len(every)))]:
            expression = f"{'.'.join(map(str, bad.path))}={in_flow(bad.value)}"
            yield Input(f"{expression[:80]} {bad.why}", (*command(random), "--set", expression))


FAMILIES = (Family("--set", _make, (*COMMANDS[:1], (*COMMANDS[0], "--set", "finetune.num_train_epochs=2e0"))),)
