"""What comes out loads with the usual classes, gives the same logits, and holds no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from engines import forward_of
from scopewise.config import LoraSection
from scopewise.data.batch import collate
from scopewise.errors import ModelError
from scopewise.models.adapters import lora_config
from scopewise.models.load import load_model, load_tokenizer, save_model

SECTION = LoraSection(r=2, lora_alpha=4, lora_dropout=0.0)


def logits_of(model: Any, encoded: Any) -> torch.Tensor:
    with torch.no_grad():
        return forward_of(model.eval()).logits(collate(encoded[0]))


def no_pickle(folder: Path) -> None:
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert any(p.suffix == ".safetensors" for p in files)
    assert not [p.name for p in files if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]


@pytest.fixture
def base(tiny: Any, tmp_path: Path) -> str:
    save_model(*tiny, tmp_path / "base")
    return str(tmp_path / "base")


def test_full_model(tiny: Any, encoded: Any, base: str) -> None:
    no_pickle(Path(base))
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(base), encoded), logits_of(tiny[0], encoded))
    assert AutoTokenizer.from_pretrained(base)("Ann")["input_ids"] == tiny[1]("Ann")["input_ids"]


@pytest.mark.parametrize("through", ["save_model", "trainer"])
@pytest.mark.parametrize("method", ["ga_descent", "ga_kl"])
@pytest.mark.parametrize("start", ["fresh", "continued"])
def test_adapter(
    start: str, method: str, through: str, encoded: Any, base: str, make_trainer: Any, tmp_path: Path
) -> None:
    """Also after KL with an adapter that was there before, whose reference must not come out with the result."""
    model, tokenizer = load_model(base), load_tokenizer(base)
    target = logits_of(model, encoded)
    if start == "continued":
        first = make_trainer(model, tokenizer, "random_labels", peft_config=lora_config(SECTION), max_steps=2)
        first.train()
        model = first.model
    trainer = make_trainer(
        model, tokenizer, method, peft_config=None if start == "continued" else lora_config(SECTION), max_steps=2
    )
    trainer.train()
    out = tmp_path / "adapter"
    if through == "trainer":
        trainer.save_model(str(out))
    else:
        save_model(trainer.model, tokenizer, out)
    no_pickle(out)
    assert not [p for p in out.iterdir() if p.is_dir()]
    want = logits_of(trainer.model, encoded)
    assert float((want - target).abs().max()) > 1e-3
    assert torch.equal(logits_of(AutoPeftModelForCausalLM.from_pretrained(str(out)), encoded), want)
    loaded = load_model(out)
    assert isinstance(loaded, PeftModel)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(logits_of(loaded, encoded), want)


def test_full_parameters_through_the_trainer(encoded: Any, base: str, make_trainer: Any, tmp_path: Path) -> None:
    trainer = make_trainer(load_model(base), load_tokenizer(base), "gradient_ascent")
    trainer.train()
    trainer.save_model(str(tmp_path / "full"))
    no_pickle(tmp_path / "full")
    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path / "full"))
    assert torch.equal(logits_of(loaded, encoded), logits_of(trainer.model, encoded))


def test_pickled_weights_alone_are_refused(tiny: Any, base: str) -> None:
    (Path(base) / "model.safetensors").unlink()
    torch.save(tiny[0].state_dict(), Path(base) / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(base)
