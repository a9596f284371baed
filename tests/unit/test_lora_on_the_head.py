"""LoRA on a head, tied to the embeddings or not: unlearned, measured and attacked as the library computes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from architectures.matrix import check_attack, check_evaluate, check_step, check_unlearn, data
from architectures.models import build, spread
from scopewise.config import LoraSection
from scopewise.models.adapters import lora_config, with_adapter

pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("check", [check_evaluate, check_unlearn, check_step, check_attack])
def test_lora_on_the_head_is_what_the_library_computes(check: Any, tied: bool) -> None:
    given = data()
    model = build("llama", len(given.tokenizer))
    spread(model)
    model.config.tie_word_embeddings = tied
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    section = LoraSection(r=4, lora_dropout=0.0, target_modules=("lm_head", "q_proj", "down_proj"))
    model = with_adapter(model, lora_config(section), seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    check(model, given)
