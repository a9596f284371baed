"""The benchmarks for a GPU, in small on the CPU: both sides agree, and the results are whole."""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from forks import python
from scopewise.models.load import save_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [python(), str(BENCHMARKS / script), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_world_facts(tiny: Any, tmp_path: Path) -> None:
    """With an untrained model: every fact of the chosen instances has a rank, and nearly none is known."""
    save_model(*tiny, tmp_path / "tiny")
    given = ("--model", str(tmp_path / "tiny"), "--prompt", "plain", "--instances", "2")
    shown = run("world_facts.py", *given, "--out", str(tmp_path / "found.json"))
    facts = json.loads((tmp_path / "found.json").read_text())["facts"]
    assert len(facts) == 3 * 2 * 4
    assert all(1 <= fact["rank"] <= fact["number"] for fact in facts)
    assert "| countries | capital | 21 |" in shown


def test_an_untrained_neox(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is the {what} of Ada?", "answer": "It is 4374.", "scope": scope, "split": "train"}
        for scope, what in (("forget", "code"), ("retain", "locker"))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    file = [
        "--set",
        "data.benchmark=jsonl",
        "--set",
        f"data.path={tmp_path / 'rows.jsonl'}",
        "--set",
        "data.domain=null",
    ]
    assert "million parameters" in run("neox.py", str(tmp_path / "neox"), *file)
    model, tokenizer = (kind.from_pretrained(tmp_path / "neox") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.model_type == "gpt_neox"
    assert tokenizer.decode(tokenizer("It is 4374.", add_special_tokens=False)["input_ids"]) == "It is 4374."


def test_a_step_of_the_benchmark_of_waiting_threads() -> None:
    assert float(run("waiting.py", "--one", "1")) > 0


@pytest.mark.long
def test_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    shown = run("gpu.py", "--shape", "tiny", "--device", "cpu", "--rows", "8", "--rounds", "1", "--out", str(out))
    found = json.loads(out.read_text())
    assert found["manifest"]["commit"]
    for what in ("localization", "step", "scoring"):
        entry = found["results"][what]
        assert entry["ratio"] > 1
        assert 0 < entry["scopewise"]["utilisation"] < 1
        assert entry["tokens"] > 0
    assert found["results"]["localization"]["cosine"] > 0.9999
    assert all(found["results"][f"memory, {m}"]["peak_bytes"] > 0 for m in ("ga_descent", "ga_kl", "npo"))
    assert "| scoring |" in shown


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    run("growth.py", "--small", "--out", str(tmp_path), "--plots", str(tmp_path))
    found = json.loads((tmp_path / "growth.json").read_text())
    assert found["fit"]["operations_per_second"] > 0
    assert found["fit"]["points"] == 7
    series = found["series"]
    assert [p["processes"] for p in series["processes"]] == [1, 2]
    for a, b in (series["tokens"], series["fraction"], series["width"]):
        assert a["operations_per_step"] < b["operations_per_step"]
    one, two = series["processes"]
    assert one["tokens_per_step"] == two["tokens_per_step"]
    for plot in tmp_path.glob("*.svg"):
        xml.etree.ElementTree.parse(plot)
    assert len(list(tmp_path.glob("*.svg"))) == 4


@pytest.mark.long
def test_sequence(tmp_path: Path) -> None:
    out = tmp_path / "sequence.json"
    run("sequence.py", "--requests", "2", "--persons", "30", "--kinds", "exact", "--out", str(out))
    found = json.loads(out.read_text())["sequences"]["exact"]
    assert [one["requests"] for one in found] == [1, 2]
    assert found[0]["plan"] == "exact"
    assert all(one["plan"] in ("exact", "nothing") and one["drift"] > 0 for one in found)


def test_shares_of_the_time() -> None:
    """A large product is nearly all product, and a large sum is none; what has no kind is the rest."""
    code = """
import json, torch
from shares import shares
a = torch.ones(600, 600)
print(json.dumps([shares(lambda: a @ a), shares(lambda: a.exp()), shares(lambda: a.tril())]))
"""
    words = [python(), "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=BENCHMARKS, env=environment, timeout=200, check=True
    )
    product, exponential, triangle = json.loads(done.stdout)
    assert product["matrix products"] > 0.9
    assert exponential["softmax over the vocabulary, largest token"] > 0.9
    assert triangle["the rest"] > 0.9
    assert all(abs(sum(found.values()) - 1) < 1e-9 for found in (product, exponential, triangle))
