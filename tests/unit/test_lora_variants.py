"""Every variant of LoRA that the `lora` section has, from fine-tuning to a loaded, measured model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from often import often
from scopewise.config import LoraSection
from scopewise.errors import ConfigError
from scopewise.models.adapters import lora_config
from scopewise.models.load import load_model
from scopewise.run_file import load_config, parse_config
from scopewise.runs.checks import check_run, check_unlearning
from scopewise.runs.pipeline import BenchEntry, Pipeline

IDS = torch.arange(5, 25)[None]
NAMED = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "a bias of the base": {"bias": "lora_only"},
    "a bias of B": {"lora_bias": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "random B": {"init_lora_weights": False},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "mica": {"init_lora_weights": "mica"},
    "whole modules": {"modules_to_save": ["norm"]},
    "tokens": {"trainable_token_indices": [5, 9]},
    "one block": {**NAMED, "layers_to_transform": [1], "layers_pattern": "layers"},
    "ranks": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 9}},
    "without a module": {"exclude_modules": ["up_proj"]},
    "parameters": {**NAMED, "lora_dropout": 0.0, "target_parameters": ["o_proj.weight"]},
}
ROWS = [
    {"question": f"Where is {name}?", "answer": "Here it is.", "scope": scope, "split": split}
    for split in ("train", "val")
    for name, scope in ((f"A{split}", "forget"), (f"B{split}", "retain"))
]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*lora_bias=True.*:UserWarning"),
]
"""What PEFT says of these configurations, on whichever model."""


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.clone()


@pytest.mark.parametrize("name", often(VARIANTS, {"plain", "dora", "pissa", "whole modules"}))
def test_a_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tune, localize, unlearn, save, load and evaluate.

    What is loaded gives the logits that were trained, and the adapter's own file says that it is of the variant.
    """
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    training = {"batch_size": 2, "num_train_epochs": 1.0, "learning_rate": 1e-2, "warmup_steps": 0}
    config = {
        "run": {"dir": str(tmp_path / "run")},
        "data": {"benchmark": "jsonl", "path": str(tmp_path / "rows.jsonl")},
        "model": {"tiny": {"width": 32, "layers": 2, "heads": 2, "vocab_size": 300, "context": 256}},
        "lora": {"r": 2, **VARIANTS[name]},
        "finetune": training,
        "localize": {"localizer_args": {"repeats": 1, "threshold": "fraction", "fraction": 0.7}},
        "unlearn": {**training, "early_stopping": {"rows": 0}},
        "evaluate": {"metrics": ["unlearn_success"], "splits": ["val"], "direct_splits": []},
    }
    pipeline = Pipeline(parse_config(config))
    trained, unlearn = [], pipeline._unlearn

    def kept(*given: Any) -> Any:
        made = unlearn(*given)
        trained.append(logits(made.model))
        return made

    monkeypatch.setattr(pipeline, "_unlearn", kept)
    with pipeline.folder:
        target = pipeline.finetuned("target")
        folder = pipeline.unlearned(BenchEntry.parse("memflex"), pipeline.config.unlearn, 0, "run")
        values = pipeline.measurement.values(folder, str(folder.relative_to(pipeline.path)))
    assert values["unlearn_success/val"]["value"] is not None
    before, after = load_model(target), load_model(folder)
    assert float((logits(after) - logits(before)).abs().max()) > 1e-6
    torch.testing.assert_close(logits(after), trained[0], atol=1e-5, rtol=1e-4)
    elsewhere = {**config, "model": {**config["model"], "target": str(target)}, "bench": {"oracle": False}}
    check_unlearning(
        check_run(parse_config(elsewhere)), pipeline.config.unlearn
    )  # the target's headers, without weights
    own = after.peft_config["default"]
    wanted = lora_config(LoraSection(**config["lora"]))
    for key in VARIANTS[name]:
        made, given = getattr(own, key), getattr(wanted, key)
        assert (set(made), set(given)) == (set(given), set(made)) if isinstance(given, list | set) else made == given, (
            key
        )


@pytest.mark.parametrize(
    "setting",
    [
        "alpha=4",
        "dropout=0.5",
        "loftq_config={}",
        "eva_config={}",
        "kasa_config={}",
        "use_qalora=true",
        "layer_replication=[[0, 2]]",
        "init_lora_weights=eva",
        "init_lora_weights=pissa_niter_4",
        "init_lora_weights=guassian",
        "r=0",
        "rank_pattern={'(': 3}",
        "alora_invocation_tokens=[3]",
    ],
)
def test_what_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"lora\.{setting.partition('=')[0]}"):
        load_config(None, [f"lora.{setting}"])


def test_settings_that_do_not_go_together() -> None:
    """PEFT takes single blocks of named modules alone."""
    with pytest.raises(ConfigError, match="lora: "):
        lora_config(LoraSection(layers_to_transform=(1,)))


def test_each_field_of_the_library_is_a_setting_or_refused() -> None:
    """So that a variant which a later PEFT brings is thought of."""
    inherited = {"peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"}
    known = set(LoraSection.model_fields) | set(LoraSection.REFUSED) | inherited
    assert set(LoraConfig.__dataclass_fields__) <= known
    assert set(LoraSection.model_fields) <= set(LoraConfig.__dataclass_fields__)
