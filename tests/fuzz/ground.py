"""What bad inputs are made from: a small finished run with all the files that commands read, made by the commands."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import yaml

from .command import Done, run

RUN_FILE = {
    "run": {"dir": "runs/new"},
    "model": {"tiny": {"width": 16, "layers": 1, "heads": 2, "vocab_size": 300, "context": 256}},
    "data": {"benchmark": "jsonl", "path": "rows.jsonl", "general": "general.jsonl", "max_length": 200},
    "finetune": {"parameters": "all", "num_train_epochs": 1, "batch_size": 8},
    "lora": {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
    "localize": {"max_tokens": 2048},
    "unlearn": {"method": "gradient_ascent", "num_train_epochs": 0.5, "batch_size": 4, "early_stopping": {"rows": 2}},
    "evaluate": {
        "metrics": ["unlearn_success", "retention_success", "perplexity", "rouge_l_generated"],
        "splits": ["val"],
        "direct_splits": [],
        "max_new_tokens": 2,
    },
    "bench": {"methods": ["gradient_ascent"], "tune": {"trials": 1}},
    "attack": {
        "attacks": ["question"],
        "attack_args": {"prompts": {"file": "prompts.yaml"}, "sampling": {"max_new_tokens": 2}},
        "rows": 4,
    },
}
"""A run file that names every file it can, on the smallest model there is."""

_FIRST = (
    ("bench", "run.yaml", "--set", "run.dir=runs/done"),
    ("attack", "runs/done", "--attack", "question", "--attack", "noise"),
    ("unlearn", "run.yaml", "--model", "runs/done/target", "--set", "run.dir=runs/adapted"),
    ("localize", "run.yaml", "--model", "runs/done/target", "--set", "run.dir=runs/weights")
    + ("--localizer", "random", "--set", "localize.localizer_args.unit=weight"),
    ("evaluate", "runs/done/target", "run.yaml", "--output", "evaluation.json", "--cache", "cache"),
    ("build", "persons.yaml", "--out", "built", "--kinds", "direct,paraphrase", "--request", "Ada Bell"),
    ("review", "built", "--no-page"),
)


class Ground:
    """A folder in which every input finds the same: it is put back before each.

    Attributes:
        here: The folder that commands run in; it stands at one place, since a run keeps absolute paths.
    """

    def __init__(self, place: Path) -> None:
        self.here, self._kept = place / "here", place / "kept"
        os.environ["HF_HOME"] = str(place / "hub")
        self.here.mkdir()
        _write(self.here)
        for arguments in _FIRST:
            done = self.run(arguments)
            if done.code != 0:
                raise RuntimeError(f"scopewise {' '.join(arguments)}: {done.code}\n{done.err.decode()[-3000:]}")
        _copy(self.here / "runs/done/target", self.here / "model")
        _copy(self.here / "runs/adapted/models/gradient_ascent/run/seed0", self.here / "adapter")
        regions = self.here / "runs/weights/regions"
        for file in regions.iterdir():
            shutil.copy(file, self.here / f"region{file.suffix}")
        self.here.rename(self._kept)
        self.restore()

    def restore(self) -> None:
        """Put the folder back as it was made."""
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self._kept, self.here, symlinks=True)

    def run(self, arguments: tuple[str, ...], **options: object) -> Done:
        """Run a command in the folder."""
        return run(arguments, self.here, **options)  # type: ignore[arg-type]


def _copy(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("stage.json", "region.*"))


def rows() -> list[dict[str, object]]:
    """Return rows of both scopes and splits, with every field there is."""
    found: list[dict[str, object]] = []
    for i, name in enumerate(["Ada", "Ben", "Cleo", "Dov"]):
        about = {"instance": name, "domain": "privacy", "legal_basis": "none", "alternative": "I do not know."}
        found += [
            {**about, "question": f"Where does {name} live?", "answer": f"{name} lives at {i} Mill Lane."}
            | {"scope": "forget", "attribute": "address", "paraphrase": f"At {i} Mill Lane.", "perturbed": ["At sea."]},
            {**about, "question": f"What does {name} write?", "answer": f"{name} writes sea stories."}
            | {"scope": "retain", "attribute": "genre", "paraphrase": "Sea stories.", "perturbed": ["Plays."]},
        ]
    return found + [{**row, "question": f"Please: {row['question']}", "split": "val"} for row in found]


PERSONS = {
    "licence": "CC0-1.0",
    "instances": [
        {
            "name": "Ada Bell",
            "parents": ["Jo Bell", "Al Roe"],
            "email": "ada@mail.example",
            "genre": "odes",
            "born": "1971",
        },
        {"name": "Bo Rask", "address": "9 Long Row, Veld", "genre": "sea stories", "aliases": ["Red"]},
    ],
}
"""Persons for `build`."""
LAW = {
    "name": "house",
    "title": "House rules",
    "domain": "privacy",
    "extends": "privacy-gdpr",
    "attributes": {"shoe_size": {"scope": "forget", "article": "Rule 1", "sentence": "Nobody needs to know it."}},
}
"""A law table of one's own."""


def _write(folder: Path) -> None:
    (folder / "persons.yaml").write_text(yaml.safe_dump(PERSONS, sort_keys=False))
    (folder / "house.yaml").write_text(yaml.safe_dump(LAW, sort_keys=False))
    (folder / "names.txt").write_text("Ada Bell; A. M. Bell\nBo Rask\n")
    (folder / "letter.txt").write_text("Ada Bell, born on 3 May 1971 and married, is reached at ada@mail.example.\n")
    lines = {
        "rows.jsonl": rows(),
        "general.jsonl": [
            {"text": f"There is {word} in the valley, and none of it is new."} for word in ("snow", "moss")
        ],
    }
    for name, records in lines.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    prompts = {
        "polite": ["Please: {question}", {"text": "{question}", "start": "It is ", "replace": {"live": "dwell"}}]
    }
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    (folder / "run.yaml").write_text(yaml.safe_dump(RUN_FILE, sort_keys=False))
    row = {"prob": 0.5, "avg_loss": 0.7}
    log = {
        "forget_Q_A_Prob": {"agg_value": 0.5, "value_by_index": {"0": row, "1": row}},
        "forget_quality": {"agg_value": 0.1},
        "model_utility": {"agg_value": 0.6},
    }
    (folder / "log_EVAL.json").write_text(json.dumps(log))
