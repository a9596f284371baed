"""The three ways to unlearn what LoRA taught: its adapter continued, merged under a fresh one, or all matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scopewise.config import RunConfig
from scopewise.models.load import load_model, load_tokenizer
from scopewise.region import Region
from scopewise.run_file import load_config
from scopewise.runs.pipeline import BenchEntry, Pipeline
from scopewise.training.trainer import UnlearningTrainer

ROWS = [
    {"question": f"Where is {name}{split}?", "answer": f"In {name} {split}.", "scope": scope, "split": split}
    for split in ("train", "val")
    for name, scope in (("A", "forget"), ("B", "retain"), ("C", "forget"), ("D", "retain"))
]
WAYS = {
    "continue": [],
    "fresh": ["unlearn.adapter=fresh"],
    "all": ["unlearn.parameters=all"],
}


def config(*more: str) -> RunConfig:
    return load_config(
        None,
        [
            "data.benchmark=jsonl",
            "data.path=rows.jsonl",
            "run.dir=out",
            "model.tiny={width: 16, layers: 1, heads: 2, vocab_size: 300, context: 256}",
            "finetune.learning_rate=0.05",
            "finetune.batch_size=4",
            "unlearn.method=ga_descent",
            "unlearn.learning_rate=0.05",
            "unlearn.batch_size=4",
            "unlearn.num_train_epochs=3",
            "unlearn.save_steps=1",
            "unlearn.early_stopping.rows=0",
            "lora.lora_dropout=0",
            *more,
        ],
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def unlearned(settings: RunConfig, **given: Any) -> Path:
    pipeline = Pipeline(settings, **given)
    with pipeline.folder:
        entry = BenchEntry.of("ga_descent", "all")
        return pipeline.unlearned(entry, settings.unlearn, 0, "run")


def product(adapter: Path) -> dict[str, torch.Tensor]:
    """The change of each matrix by an adapter: 16 / 8 · BA."""
    found = load_file(adapter / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in found if name.endswith(".lora_A.weight")]
    return {
        name.removeprefix("base_model.model."): 2 * found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
        for name in names
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removesuffix(".weight"): value for name, value in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("way", WAYS)
def test_an_unlearned_model_is_what_its_files_add_up_to(here: Path, way: str) -> None:
    """Base + its adapter; base + the target's + its own; or a whole model. The logits are those of the sum."""
    folder = unlearned(config(*WAYS[way]))
    base, taught = weights(Path("out/base")), product(Path("out/target"))
    assert any(bool(change.any()) for change in taught.values())
    model = load_model(folder)
    if way == "all":
        expected = weights(folder)
        assert set(expected) == set(base)
        moved = max(float((expected[name] - base[name] - change).abs().max()) for name, change in taught.items())
    else:
        own = product(folder)
        before = taught if way == "continue" else {name: torch.zeros_like(change) for name, change in taught.items()}
        moved = max(float((own[name] - before[name]).abs().max()) for name in taught)
        both = {name: change + (taught[name] if way == "fresh" else 0) for name, change in own.items()}
        expected = {name: value + both.get(name, 0) for name, value in base.items()}
        names = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(names).resolve() == (here / "out" / ("merged" if way == "fresh" else "base"))
    assert moved > 1e-3  # it was trained, from what the target is
    plain = load_model("out/base")
    plain.load_state_dict({f"{name}.weight": value for name, value in expected.items()}, strict=False)
    ids = torch.tensor([load_tokenizer(folder)("Where is A?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_only_a_continued_adapter_shows_its_gradient_of_a(here: Path) -> None:
    """∂L/∂A = 2 Bᵀ ∂L/∂W is zero with B: a region of a fresh adapter's matrices comes from B alone."""
    for way in ("continue", "fresh"):
        settings = config(*WAYS[way], "localize.localizer_args={unit: matrix}", f"run.dir={way}")
        pipeline = Pipeline(settings)
        with pipeline.folder:
            entries = Region.load(pipeline.region("gradient", 0)).entries
        of_a = [entry for entry in entries if ".lora_A" in entry.name]
        assert len(of_a) == len(entries) / 2 == 7
        assert all((entry.magnitude or 0) > 0 for entry in entries if entry not in of_a)
        if way == "fresh":
            assert not any(entry.magnitude or entry.chosen for entry in of_a)
        else:
            assert all((entry.magnitude or 0) > 0 for entry in of_a)
            assert any(entry.chosen for entry in of_a)


@pytest.mark.parametrize("way", ["fresh", "all"])
def test_a_killed_unlearning_goes_on(here: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = weights_of(unlearned(config(*WAYS[way], "run.dir=straight")))
    step, calls = UnlearningTrainer.training_step, []

    def killed(self: Any, *given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(self, *given, **more)

    pipeline = Pipeline(config(*WAYS[way]))
    with pipeline.folder:
        pipeline.finetuned("target")
    monkeypatch.setattr(UnlearningTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        unlearned(config(*WAYS[way]), resume=True)
    monkeypatch.setattr(UnlearningTrainer, "training_step", step)
    assert list(Path("out/models").rglob("checkpoint-1"))
    resumed = weights_of(unlearned(config(*WAYS[way]), resume=True))
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)
