"""`scopewise attack` on a run folder: results join, nothing is overwritten unasked, nothing is attacked twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_commands import SHORT, TINY, scopewise

from scopewise.errors import ConfigError


@pytest.mark.long
def test_attacks_of_a_run_join_and_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = scopewise("bench", settings=[*TINY, *SHORT, f"run.dir={run}", "bench.methods=[memflex, ga_descent]"])
    assert made.returncode == 0, made.stderr

    def attack(*words: str, code: int = 0) -> str:
        done = scopewise("attack", str(run), *words)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def results() -> dict[tuple[str, str], dict]:
        document = json.loads((run / "attacks.json").read_text())
        return {(row["method"], row["attack"]): row for row in document["results"]}

    few = ["--set", "rows=12"]
    shown = attack("--attack", "question", "--attack", "extraction", "--model", "models/memflex/", *few)
    assert "| memflex " in shown
    assert "| ga_descent " not in shown
    assert set(results()) == {(m, a) for m in ("target", "oracle", "memflex") for a in ("question", "extraction")}
    pieces = {path: path.stat().st_mtime_ns for path in (run / "attacks").rglob("*.json")}

    # Another attack, on all models: what is there stays, and what was made is not made again.
    shown = attack("--attack", "pruning", *few)
    assert {("memflex", "question"), ("memflex", "pruning"), ("ga_descent", "pruning")} <= set(results())
    attack("--attack", "question", *few)
    assert {path: path.stat().st_mtime_ns for path in pieces} == pieces
    shown = scopewise("show", str(run / "attacks.json")).stdout
    assert "pruning" in shown
    assert "extraction" in shown

    before = results()
    assert "--overwrite" in attack("--attack", "question", "--set", "rows=8", code=2)
    assert "--overwrite" in attack("--attack", "question", *few, "--set", "threshold=0.3", code=2)
    assert results() == before
    attack("--attack", "question", *few, "--redact")
    assert all("answer" not in leak and "output" not in leak for row in results().values() for leak in row["worst"])
    assert len(results()) == len(before)
    attack("--attack", "question", "--set", "rows=8", "--overwrite")
    assert {name for _, name in results()} == {"question"}

    # A model that cannot be loaded is found before any is attacked.
    (run / "oracle/adapter_config.json").rename(run / "oracle/away.json")
    files = sorted((run / "attacks").rglob("*"))
    said = attack("--attack", "few_shot", "--set", "rows=8", code=2)
    assert said.startswith("scopewise: ")
    assert "oracle" in said
    assert sorted((run / "attacks").rglob("*")) == files
    (run / "oracle/away.json").rename(run / "oracle/adapter_config.json")

    assert "attack: 'bribery'" in attack("--attack", "bribery", code=2)
    assert "no such model" in attack("--model", "npo", code=2)
    assert "unknown key" in attack("--set", "hardness=3", code=2)
    assert "prompts.file" in attack("--set", "attack_args.prompts.file=gone.yaml", code=2)
    assert "attack.attack_args.relearning.steps" in attack("--set", "steps=3", code=2)
    assert "allowed are ga_descent, memflex. Did you mean 'memflex'?" in attack("--model", "memflx", code=2)
    assert "Did you mean 'memflex/paper'?" in attack("--model", "memflex/papr", code=2)
    (run / "oracle").rename(run / "away")
    assert "no oracle in it" in attack("--attack", "question", "--overwrite", code=2)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = scopewise("attack", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}: " in done.stderr


@pytest.mark.parametrize("record", ["run: [x]\n", "run: {dir: x}\nattack: 3\n", "- a list\n"])
def test_a_changed_record_of_a_run_is_refused(record: str, tmp_path: Path) -> None:
    from scopewise.runs.attack import config_of

    (tmp_path / "config.yaml").write_text(record)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        config_of(tmp_path, {"attacks": ["question"]})


def test_an_empty_name_is_not_every_model(tmp_path: Path) -> None:
    (tmp_path / "models" / "npo" / "run" / "seed0").mkdir(parents=True)
    (tmp_path / "models" / "npo" / "run" / "seed0" / "stage.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("run: {dir: x}\n")
    done = scopewise("attack", str(tmp_path), "--model", "")
    assert done.returncode == 2
    assert "attack.models: an empty name" in done.stderr
