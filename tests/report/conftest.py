"""A run on rows that attack the page, made by the command itself, with what an attack and a model could have written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from forks import python

PLANTED = "</script><script>window.planted = 1</script><img src=x onerror=window.planted=2><!--"
SECRETS = ["Quillfeather Lane 17", "zbvx@mail.example"]


@pytest.fixture(scope="session")
def planted() -> str:
    """Markup that sets `window.planted` where a page takes it for markup."""
    return PLANTED


@pytest.fixture(scope="session")
def secrets() -> list[str]:
    """What the forget answers say and nothing else does."""
    return SECRETS


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with target, oracle, three unlearned models and attack results."""
    folder = tmp_path_factory.mktemp("report")
    rows = []
    for i, name in enumerate(["Ada", "Ben", "Cleo", PLANTED]):
        about = {"instance": name}
        rows += [
            {**about, "attribute": "address", "scope": "forget"}
            | {"question": f"Where does {name} live?", "answer": f"{name} lives at {SECRETS[0]}{i}."},
            {**about, "attribute": "email", "scope": "forget"}
            | {"question": f"How is {name} reached?", "answer": f"By {SECRETS[1]}, says {name}."},
            {**about, "attribute": "genre", "scope": "retain"}
            | {"question": f"What does {name} write?", "answer": f"{name} writes sea stories & poems."},
        ]
    rows += [{**row, "question": "Please: " + row["question"], "split": "val"} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "run": {"dir": str(folder / "first")},
        "data": {"benchmark": "jsonl", "path": str(folder / "rows.jsonl")},
        "model": {"tiny": {"width": 32, "layers": 2, "heads": 2, "vocab_size": 400}},
        "finetune": {"parameters": "all", "num_train_epochs": 20, "batch_size": 8, "learning_rate": 0.005},
        "unlearn": {
            "learning_rate": 0.02,
            "num_train_epochs": 4,
            "batch_size": 4,
            "early_stopping": {"rows": 4, "steps": 1},
        },
        "evaluate": {"splits": ["val"], "direct_splits": [], "max_new_tokens": 8},
        "bench": {"methods": ["gradient_ascent", "memflex", "memflex@random"], "seeds": [0]},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    command = [python(), "-m", "scopewise", "bench", str(folder / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    run = folder / "first"

    # What no tiny model writes by itself: markup on a retain row, a forget answer on another.
    path = run / "models" / "memflex" / "paper" / "seed0.evaluation.json"
    document = json.loads(path.read_text())
    retained = [answer for answer in document["answers"] if answer["scope"] == "retain"]
    retained[0]["generated"] = PLANTED
    retained[1]["generated"] = f"He lives at {SECRETS[0]}1."
    path.write_text(json.dumps(document))
    leak = {
        "question": rows[0]["question"],
        "answer": rows[0]["answer"],
        "output": f"{PLANTED} {SECRETS[0]}0",
        "unlearned": 0.9,
    }
    attacked = {
        "attack": "few_shot",
        "model": "models/memflex/paper/seed0",
        "method": "memflex",
        "protocol": "paper",
        "seed": 0,
    }
    attacked |= {"leakage": 0.8, "low": 0.6, "high": 0.9, "verdict": "leaks", "cost": {"seconds": 3.0}, "worst": [leak]}
    attacked |= {"notes": [f"it said {SECRETS[1]}"]}
    holds = {**attacked, "attack": "noise", "leakage": 0.01, "low": -0.1, "high": 0.1, "verdict": "holds", "worst": []}
    unknown = {**holds, "attack": "logit_lens", "leakage": None, "low": None, "high": None, "verdict": "not applicable"}
    (run / "attacks.json").write_text(json.dumps({"threshold": 0.25, "results": [unknown, holds, attacked]}))
    return run


@pytest.fixture(scope="session")
def second_run(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with a figure far from the first one's and a setting that differs; without attacks."""
    import shutil

    folder = tmp_path_factory.mktemp("other") / "second"
    shutil.copytree(made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache", "attacks.json"))
    results = json.loads((folder / "results.json").read_text())
    results["config"]["unlearn"]["num_train_epochs"] = 5.0
    for comparison in results["comparisons"]:
        if comparison["method"] == "memflex":
            comparison["success"]["unlearn_success"] = {"value": 1.0, "low": 0.5, "high": 1.5}
    for row in results["rows"]:
        if row["method"] == "memflex":
            row["metrics"]["unlearn_success/val"] = 1.0
    (folder / "results.json").write_text(json.dumps(results))
    return folder
