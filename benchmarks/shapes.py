"""Models of a given shape with random weights, and rows of random tokens: what the speed of a model depends on."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from scopewise.config import LoraSection
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.tiny import build_tokenizer

MEAN_TOKENS, MOST_TOKENS = 45, 256
"""Of KnowUnDo's rows, question and answer together, in the tokens of LLaMA-2."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    width: int
    mlp: int
    layers: int
    heads: int
    vocab: int


SHAPES = {
    "llama2-7b": Shape(4096, 11008, 32, 32, 32000),
    "small": Shape(256, 688, 6, 4, 4096),
    "tiny": Shape(64, 192, 2, 2, 512),
}


def random_model(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """Return an untrained Llama, made on the device and in the dtype that it is to have."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=shape.vocab,
                    hidden_size=shape.width,
                    intermediate_size=shape.mlp,
                    num_hidden_layers=shape.layers,
                    num_attention_heads=shape.heads,
                    max_position_embeddings=4096,
                    bos_token_id=1,
                    eos_token_id=2,
                    pad_token_id=0,
                )
            )
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def adapted(base: PreTrainedModel, seed: int = 0, *, trained: bool) -> PeftModel:
    """Return the model with LoRA r 8 on all linear layers, without dropout.

    Args:
        base: The model.
        seed: Of the adapter.
        trained: Whether B is small and random, as after a fine-tuning, or zero, as it is when just added.
    """
    model = with_adapter(base, lora_config(LoraSection(lora_dropout=0.0)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if trained and ".lora_B." in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def random_rows(count: int, vocab: int, scope: str, seed: int = 0, mean_tokens: int = MEAN_TOKENS) -> list[Encoded]:
    """Return rows whose lengths are spread as KnowUnDo's: log-normal, of that mean, a third of it the question."""
    rng = random.Random(f"{seed}/{scope}")
    rows = []
    for _ in range(count):
        length = min(MOST_TOKENS, max(6, round(mean_tokens * rng.lognormvariate(-0.08, 0.4))))
        ids = [rng.randrange(3, vocab) for _ in range(length)]
        cut = max(2, length // 3)
        rows.append(Encoded(Row(f"question of {scope}", "answer", scope), tuple(ids[:cut]), tuple(ids[cut:])))
    return rows


def some_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer that decodes ids to something; what it says is not read."""
    return build_tokenizer(["random tokens"], 300)
