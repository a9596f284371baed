"""Paths that cannot be read or written, in every place where a path is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from ..ground import RUN_FILE
from ..inputs import Content, Family, Folder, Input, Link
from ..schema import Bad, with_bad
from .run_file import to_yaml

# Where a path goes in: {} is the path. What is read must be there; what is written must have a place.
_READ_FOLDER = (
    ("finetune", "run.yaml", "--set", "model.path={}"),
    ("unlearn", "run.yaml", "--model", "{}"),
    ("localize", "run.yaml", "--model", "{}"),
    ("bench", "run.yaml", "--set", "model.target={}", "--set", "model.path=model"),
    ("evaluate", "{}", "run.yaml"),
    ("evaluate", "model", "run.yaml", "--set", "evaluate.reference_model={}"),
    ("attack", "{}"),
    ("attack", "runs/done", "--target", "{}"),
    ("attack", "runs/done", "--oracle", "{}"),
    ("report", "{}", "-o", "out.html"),
    ("play", "{}"),
    ("check", "run.yaml", "--set", "data.benchmark=tofu", "--set", "data.path={}"),
    ("check", "run.yaml", "--set", "data.benchmark=knowundo", "--set", "data.path={}"),
    ("check", "run.yaml", "--set", "evaluate.ability.tasks=[race]", "--set", "evaluate.ability.path={}"),
)
_READ_FILE = (
    ("show", "{}.json"),
    ("check", "{}.yaml"),
    ("bench", "{}.yaml"),
    ("check", "run.yaml", "--set", "data.path={}"),
    ("check", "run.yaml", "--set", "data.general={}"),
    ("check", "run.yaml", "--set", "attack.attack_args.prompts.file={}"),
    ("attack", "runs/done", "--attack", "prompts", "--overwrite", "--set", "prompts={}"),
    ("unlearn", "run.yaml", "--region", "{}"),
    ("unlearn", "run.yaml", "--model", "model", "--region", "{}"),
    ("evaluate", "model", "run.yaml", "--reference", "{}"),
    ("evaluate", "model", "run.yaml", "--target", "{}"),
)
_WRITTEN = (
    ("bench", "run.yaml", "--set", "run.dir={}"),
    ("finetune", "run.yaml", "--set", "run.dir={}"),
    ("evaluate", "model", "run.yaml", "--output", "{}"),
    ("evaluate", "model", "run.yaml", "--cache", "{}"),
    ("report", "runs/done", "-o", "{}.html"),
)

_LOOP: dict[str, Content] = {"loop": Link("pool"), "pool": Link("loop")}
_LOCKED: dict[str, Content] = {"locked": Folder(0)}


def _reading(random: Random) -> list[tuple[str, str, dict[str, Content]]]:
    return [
        ("nothing there", random.choice(["./gone", "/gone/away", "runs/../gone", "~/gone", "./ gone "]), {}),
        ("below a file", "./rows.jsonl/" + random.choice(["x", "x/y", ".."]), {}),
        ("a name too long", "./" + "n" * random.choice([256, 300, 1000]), {}),
        ("a path too long", "./" + "d/" * 3000 + "x", {}),
        ("a loop of links", "./loop/x", _LOOP),
        ("a link to nothing", "./link", {"link": Link("nowhere/at/all")}),
        ("a control character", "./\x1b[31mred\x1b]0;title\x07", {}),
        ("text turned around", "./\u202egnp.exe\u200b", {}),
        ("bytes that are no text", "./\udcff\udc80", {}),
        ("a new line", "./one\ntwo", {}),
        ("a device", "/dev/null/x", {}),
    ]


def _filled(template: tuple[str, ...], path: str) -> tuple[str, ...]:
    # In a setting the path is read as YAML: quoted, so that it is the same text.
    quoted = "'" + path.replace("'", "''") + "'" if not any(ord(c) < 32 for c in path) else _double(path)
    return tuple(part.replace("{}", quoted if "={}" in part else path) for part in template)


def _double(path: str) -> str:
    return '"' + "".join(f"\\x{ord(c):02x}" if ord(c) < 32 else c for c in path) + '"'


def _make(ground: Path, random: Random) -> Iterator[Input]:
    while True:
        for what, path, files in _reading(random):
            template = random.choice(_READ_FOLDER + _READ_FILE)
            yield Input(f"{what}: {path[:40]!a}", _filled(template, path), files)
        for what, path, files in _reading(random):
            if what in ("below a file", "a name too long", "a path too long", "a device") or what == "a loop of links":
                yield Input(f"to write, {what}", _filled(random.choice(_WRITTEN), path), files)
        template = random.choice(_READ_FILE)
        yield Input(
            "a folder for a file", _filled(template, "./some"), {f"some{e}": Folder() for e in ("", ".json", ".yaml")}
        )
        template = random.choice(_READ_FOLDER)
        yield Input("a file for a folder", _filled(template, "./rows.jsonl"))
        yield Input("an empty folder", _filled(template, "./some"), {"some": Folder()})
        locked = random.choice(_READ_FOLDER + _READ_FILE + _WRITTEN)
        yield Input("below a folder without permission", _filled(locked, "./locked/x"), _LOCKED, as_nobody=True)
        key = random.choice(
            [
                "run.dir",
                "data.path",
                "data.general",
                "model.path",
                "model.target",
                "unlearn.region",
                "attack.attack_args.prompts.file",
            ]
        )
        wrong = random.choice(["nul \0 byte", "\0", "x\ud800", ""])
        document = to_yaml(with_bad(RUN_FILE, Bad(tuple(key.split(".")), wrong, "")))
        command = random.choice([("check", "run.yaml"), ("unlearn", "run.yaml"), ("bench", "run.yaml")])
        yield Input(f"{key} is {wrong!a}", command, {"run.yaml": document})


FAMILIES = (
    Family(
        "paths",
        _make,
        (
            ("report", "runs/done", "-o", "out.html"),
            ("check", "run.yaml", "--set", "attack.attack_args.prompts.file='./prompts.yaml'"),
            (
                "evaluate",
                "model",
                "run.yaml",
                "--reference",
                "evaluation.json",
                "--output",
                "./out.json",
                "--cache",
                "./kept",
            ),
            ("unlearn", "run.yaml", "--model", "adapter"),
        ),
    ),
)
