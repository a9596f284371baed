"""Run folders: what is in them does not belong together, or is asked for in two ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import yaml

from ..inputs import Content, Family, Folder, Gone, Input
from ..schema import bad_values, with_bad
from ..text import any_of, broken_yaml
from .documents import UNLEARNED
from .run_file import to_yaml

_READ = (
    ("attack", "runs/done", "--attack", "few_shot"),
    ("play", "runs/done"),
    ("bench", "run.yaml", "--resume", "--set", "run.dir=runs/done"),
)
_DONE = ("--set", "run.dir=runs/done")


def _make(ground: Path, random: Random) -> Iterator[Input]:
    from scopewise.config import RunConfig

    text = (ground / "runs/done/config.yaml").read_bytes()
    config = yaml.safe_load(text)
    every = [bad for bad in bad_values(RunConfig.model_json_schema(), config) if "attack" not in bad.path]
    making = ("bench", "run", "finetune", "unlearn", "localize", "tune")
    while True:
        for name in making:
            yield Input("the folder holds a run", (name, "run.yaml", *_DONE))
            yield Input("both --resume and --overwrite", (name, "run.yaml", *_DONE, "--resume", "--overwrite"))
        other = random.choice(
            ["finetune.num_train_epochs=7", "run.seed=5", "finetune.learning_rate=0.3", "data.max_length=190"]
        )
        yield Input(
            "other settings than it was made with",
            (random.choice(making[:4]), "run.yaml", *_DONE, "--resume", "--set", other),
        )
        yield Input("a folder that holds other files", ("bench", "run.yaml", "--set", "run.dir=model"))
        yield Input("a folder that holds other files", ("bench", "run.yaml", "--overwrite", "--set", "run.dir=model"))
        yield Input("a file", ("finetune", "run.yaml", "--set", "run.dir=rows.jsonl"))
        for what, damaged in any_of(broken_yaml)(text, random)[:3]:
            yield Input(f"config.yaml: {what}", random.choice(_READ[:2]), {"runs/done/config.yaml": damaged})
        for bad in random.sample(every, 6):
            files: dict[str, Content] = {"runs/done/config.yaml": to_yaml(with_bad(config, bad))}
            yield Input(f"config.yaml: {'.'.join(map(str, bad.path))} {bad.why}", _READ[0], files)
        for stage in ("target", "oracle", UNLEARNED.removeprefix("runs/done/")):
            gone: dict[str, Content] = {f"runs/done/{stage}": random.choice([Gone(), Folder(), b"a file"])}
            if gone[f"runs/done/{stage}"] == Folder():
                gone = {
                    f"runs/done/{stage}/{file}": Gone()
                    for file in ("config.json", "adapter_config.json", "model.safetensors")
                }
            if stage in ("target", "oracle"):
                yield Input(f"no {stage}", _READ[0], gone)
        yield Input("no unlearned model", random.choice(_READ[:2]), {"runs/done/models": Gone()})
        yield Input(
            "no run", random.choice([("attack", "model"), ("play", "model"), ("report", "model"), ("show", "model")])
        )
        yield Input("no such model", ("attack", "runs/done", "--model", random.choice(["memflex", "x", "", "../.."])))
        yield Input(
            "a page that exists",
            ("report", "runs/done", "-o", random.choice(["rows.jsonl", "run.yaml"]), "--format", "md"),
        )
        yield Input("a salt without redaction", ("report", "runs/done", "--salt", "x"))
        yield Input("an output that exists", ("evaluate", "model", "run.yaml", "--output", "evaluation.json"))
        yield Input("an output for two runs", ("report", "runs/done", "runs/done"))


FAMILIES = (Family("runs", _make, (*_READ[:1],)),)
