"""Run files: values and keys that the schema forbids, and text that is no YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from scopewise.config import RunConfig, UnlearnSection

from ..ground import RUN_FILE
from ..inputs import Family, Input
from ..schema import HUGE, Bad, bad_values, with_bad
from ..text import any_of, broken_yaml, repeated_key

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("check", "run.yaml", "--no-length"),
    ("show", "run.yaml"),
    ("bench", "run.yaml"),
    ("run", "run.yaml"),
    ("finetune", "run.yaml"),
    ("unlearn", "run.yaml"),
    ("localize", "run.yaml"),
    ("tune", "run.yaml"),
    ("evaluate", "model", "run.yaml"),
)
"""All that read one; the first two make nothing, and are asked more often."""


def to_yaml(document: Any) -> bytes:
    """Return YAML in block style, with integers of any length."""

    def writable(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: writable(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [writable(inner) for inner in value]
        return "@HUGE@" if value is HUGE else value

    text = yaml.safe_dump(writable(document), sort_keys=False)
    return text.replace("'@HUGE@'", "9" * 5000).encode()


def command(random: Random) -> tuple[str, ...]:
    """Return a command that reads the run file."""
    return random.choice(COMMANDS[:2] * 4 + COMMANDS[2:])


def bad_settings() -> list[Bad]:
    """Return every value that the schema of a run file forbids."""
    every = list(bad_values(RunConfig.model_json_schema(), RUN_FILE))
    unlearn = list(bad_values(UnlearnSection.model_json_schema()))
    for group, method in (("settings", "npo"), ("paper", "memflex")):  # changes of the section by method
        every += [Bad(("bench", group, method, *bad.path), bad.value, bad.why) for bad in unlearn]
    return every


def _values(ground: Path, random: Random) -> Iterator[Input]:
    every = bad_settings()
    random.shuffle(every)
    for bad in every:
        key = ".".join(map(str, bad.path))
        yield Input(f"{key} {bad.why}", command(random), {"run.yaml": to_yaml(with_bad(RUN_FILE, bad))})


def _yaml(ground: Path, random: Random) -> Iterator[Input]:
    text = (ground / "run.yaml").read_bytes()
    for _ in range(20):
        for what, damaged in [*any_of(broken_yaml)(text, random), repeated_key(text, random)]:
            yield Input(what, command(random), {"run.yaml": damaged})


FAMILIES = (Family("run file", _values, COMMANDS), Family("yaml", _yaml, COMMANDS[:2]))
