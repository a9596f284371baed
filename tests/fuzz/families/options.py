"""Command lines that the commands' own parameters forbid."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, get_args

import typer

from ..inputs import Family, Input
from ..schema import misspelt

GOOD: dict[str, tuple[str, ...]] = {
    "attack": ("runs/done",),
    "bench": ("run.yaml",),
    "build": ("persons.yaml",),
    "check": ("run.yaml",),
    "demo": (),
    "evaluate": ("model", "run.yaml"),
    "finetune": ("run.yaml",),
    "forget": ("rows.jsonl",),
    "list": ("methods",),
    "localize": ("run.yaml",),
    "play": ("runs/done",),
    "recheck": ("ledger",),
    "report": ("runs/done",),
    "requests": ("ledger",),
    "review": ("built",),
    "run": ("run.yaml",),
    "show": ("runs/done",),
    "tasks": (),
    "test-plugin": ("npo",),
    "tune": ("run.yaml",),
    "unlearn": ("run.yaml",),
    "verify": ("record",),
}
"""What each command takes for its arguments."""


def _commands() -> dict[str, Any]:
    import importlib
    import pkgutil

    import scopewise.cli
    from scopewise.cli import app, main  # noqa: F401

    for module in pkgutil.iter_modules(scopewise.cli.__path__, "scopewise.cli."):
        importlib.import_module(module.name)
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _make(ground: Path, random: Random) -> Iterator[Input]:
    commands = _commands()
    for _ in range(1000):
        name = random.choice(list(commands))
        command = commands[name]
        good = GOOD[name]
        options = [p for p in command.params if p.param_type_name == "option"]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        yield Input("no such command", (misspelt(name), *good))
        yield Input("no such option", (name, *good, f"--{misspelt(name)}"))
        yield Input("no such short option", (name, *good, "-Z"))
        if not any(p.nargs == -1 or p.multiple for p in arguments):
            yield Input("too many arguments", (name, *good, *("more",) * (len(arguments) - len(good) + 1)))
        if any(p.required for p in arguments):
            yield Input("an argument is missing", (name,))
        yield Input("a control character in an option", (name, *good, "--\x1b[31mred"))
        if not options:
            continue
        option = random.choice(options)
        flag = random.choice(option.opts)
        if flag.startswith("--"):
            yield Input("an option misspelt", (name, *good, "--" + misspelt(flag[2:])))
        if option.is_flag:
            yield Input("a flag with a value", (name, *good, f"{flag}=1"))
            continue
        yield Input("an option without its value", (name, *good, flag))
        for argument in (option, *arguments):
            for wrong in _wrong(argument, random):
                if argument is option:
                    yield Input(f"{flag} is {wrong!r}", (name, *good, flag, wrong))
                else:
                    yield Input(f"{argument.name} is {wrong!r}", (name, wrong, *good[1:]))


def _wrong(parameter: Any, random: Random) -> Iterator[str]:
    """Return texts that a parameter's type forbids."""
    annotation = parameter.type_descriptor.annotation
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            one = random.choice([str(choice.value) for choice in kind])
            yield from (misspelt(one), one.upper() + "!", "", "\x1b[2J" + one)
        elif kind in (int, float):
            yield from ("x", "", "1.5x", "nan?", "9" * 5000, "0x10", "\u0661x")
            yield from (
                str(bound + way) for bound, way in ((parameter.max, 1), (parameter.min, -1)) if bound is not None
            )


FAMILIES = (Family("options", _make, tuple((name, *GOOD[name]) for name in ("list", "show", "check", "tasks"))),)
