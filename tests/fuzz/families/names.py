"""Names that no table has, arguments of methods that they do not take, and settings that do not go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from scopewise import registry

from ..ground import RUN_FILE
from ..inputs import Family, Input
from ..schema import HUGE, Bad, misspelt, with_bad
from .run_file import COMMANDS, command, to_yaml

_NAMED = (
    ("unlearn.method", "methods", False),
    ("unlearn.localizer", "localizers", False),
    ("localize.localizer_args.size_of", "localizers", False),
    ("evaluate.metrics", "metrics", True),
    ("attack.attacks", "attacks", True),
    ("bench.methods", "methods", True),
    ("data.benchmark", "benchmarks", False),
)


_LOCALIZING = (COMMANDS[0], *COMMANDS[2:4], *COMMANDS[5:7])


def _changed(changes: dict[str, Any], what: str, arguments: tuple[str, ...]) -> Input:
    document: Any = RUN_FILE
    for key, value in changes.items():
        document = with_bad(document, Bad(tuple(key.split(".")), value, ""))
    return Input(what, arguments, {"run.yaml": to_yaml(document)})


def _names(ground: Path, random: Random) -> Iterator[Input]:
    while True:
        setting, kind, many = random.choice(_NAMED)
        name = random.choice(list(registry.table(kind)))
        wrong = random.choice(
            [misspelt(name), f"{name}@{misspelt('random')}", "", " ", name + "\x1b[2J", f"{name}\0", "../" + name]
        )
        if kind == "methods" and setting == "bench.methods" and random.random() < 0.3:
            wrong = random.choice([f"{name}@", f"@{name}", f"{name}@all@all"])
        if kind == "methods" and random.random() < 0.3:
            wrong = random.choice(
                [f"{name}+", f"{name}+sam+sam", f"+{name}", f"{name}+{misspelt('sam')}", f"{name}+{name}"]
            )
        # A localizer's own settings are checked by the commands that localize.
        asked = random.choice(_LOCALIZING) if setting.startswith("localize.") else command(random)
        yield _changed({setting: [wrong] if many else wrong}, f"{setting} is {wrong!r}", asked)
        option = random.choice(
            [
                ("unlearn", "run.yaml", "--method"),
                ("localize", "run.yaml", "--localizer"),
                ("attack", "runs/done", "--attack"),
            ]
        )
        yield Input(f"{option[-1]} {wrong!r}", (*option, wrong.replace("\0", "x") or "q"))
        for key, known in (("finetune.lr_scheduler_type", "cosine"), ("unlearn.optim", "adamw_torch")):
            wrong = random.choice([misspelt(known), "", known + " "])
            # Whether the library has an optimiser is asked by what unlearns, and by `check`.
            yield _changed(
                {key: wrong}, f"{key} is {wrong!r}", random.choice([COMMANDS[0], *COMMANDS[2:4], COMMANDS[5]])
            )


def _arguments(ground: Path, random: Random) -> Iterator[Input]:
    checking = (COMMANDS[0], *COMMANDS[2:4], COMMANDS[5])
    while True:
        method = random.choice(list(registry.table("methods")))
        fields = dataclasses.fields(registry.lookup("methods", method))
        field = random.choice(fields)
        number = "float" in str(field.type) or "int" in str(field.type)
        values = ["text", float("nan"), float("inf"), -float("inf"), HUGE] if number else ["nonsense", 3.5]
        values += [[1], {"a": 1}, True]
        wrong = random.choice(values)
        given = {field.name: wrong} if random.random() < 0.7 else {misspelt(field.name): 1.0}
        shown = "huge" if wrong is HUGE else repr(wrong)
        what = f"method {method}: {field.name} is {shown}, as {next(iter(given))}"
        yield _changed({"unlearn.method": method, "unlearn.method_args": given}, what, random.choice(checking))


# Each breaks a rule between settings that docs and docstrings state.
_TOGETHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("width that heads do not divide", {"model.tiny.width": 18, "model.tiny.heads": 4}),
    ("a head of odd size", {"model.tiny.width": 18, "model.tiny.heads": 2}),
    ("a prompt without a question", {"data.prompt": "Question: "}),
    ("a system message of no chat", {"data.system": "Be brief."}),
    ("a range from high to low", {"bench.tune.learning_rate": [1e-3, 1e-5]}),
    ("a range from zero", {"bench.tune.retain_weight": [0, 1]}),
    ("a range to infinity", {"bench.tune.retain_weight": [1, float("inf")]}),
    (
        "a knob that the method has not",
        {"bench.tune.knobs": {"npo": {"bta": [1, 2]}}, "bench.protocols": ["tuned"], "bench.methods": ["npo"]},
    ),
    ("no method", {"bench.methods": []}),
    ("no protocol", {"bench.protocols": []}),
    ("no seed", {"bench.seeds": []}),
    ("a method twice", {"bench.methods": ["npo", "npo"]}),
    ("a seed twice", {"bench.seeds": [0, 0]}),
    ("a region for several methods", {"unlearn.region": "region.json", "bench.methods": ["npo", "ga_kl"]}),
    ("oracle from another start", {"model.target": "model"}),
    ("search for an oracle that is not made", {"bench.tune.choose": "oracle", "bench.oracle": False}),
    ("four bits on a processor", {"model.quantization": "nf4", "model.path": "model"}),
    ("a pattern that is none", {"localize.localizer_args.pattern": "(", "unlearn.localizer": "named"}),
    ("a pattern that matches nothing", {"localize.localizer_args.pattern": "zzz", "unlearn.localizer": "named"}),
    ("modules that the model has not", {"lora.target_modules": ["zzz_proj"]}),
    ("a domain that the benchmark has not", {"data.benchmark": "builtin", "data.path": None, "data.domain": "prvacy"}),
    ("rows that do not fit", {"data.max_length": 8}),
    ("a split without rows", {"evaluate.splits": ["val"], "data.path": "train.jsonl"}),
    ("a task that the harness has not", {"evaluate.ability.tasks": ["mmluu"], "evaluate.ability.path": "."}),
    ("a model that is none", {"model.path": "./nowhere"}),
    ("a hub name that is none", {"model.path": "no//body"}),
    ("seeds below zero", {"run.seed": -1}),
    ("seeds out of range", {"run.seed": 2**70}),
)


def _together(ground: Path, random: Random) -> Iterator[Input]:
    train = b"".join(line for line in (ground / "rows.jsonl").read_bytes().splitlines(True) if b'"val"' not in line)
    every = [
        (what, changes, arguments)
        for what, changes in _TOGETHER
        for arguments in (("check", "run.yaml"), ("bench", "run.yaml"), ("unlearn", "run.yaml"))
    ]
    random.shuffle(every)
    for what, changes, arguments in every:
        bench_only = any(key.startswith("bench.") for key in changes) or what in (
            "oracle from another start",
            "a region for several methods",
        )
        if bench_only and arguments[0] == "unlearn":
            continue
        made = _changed(changes, what, arguments)
        if what == "a pattern that matches nothing":  # of an adapter on a model that is trained first
            if arguments[0] != "unlearn":
                continue
            made = dataclasses.replace(made, begins=True)
        yield dataclasses.replace(made, files={**made.files, "train.jsonl": train})


FAMILIES = (
    Family(
        "names", _names, (("unlearn", "run.yaml", "--method", "npo"), ("localize", "run.yaml", "--localizer", "random"))
    ),
    Family("method_args", _arguments, COMMANDS[:1]),
    Family("together", _together, (("check", "run.yaml"),)),
)
