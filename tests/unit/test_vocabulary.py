"""Ids without an embedding never reach the model: padding takes another id, tokens of rows are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.api import evaluate, localize, unlearn
from scopewise.config import TinyConfig
from scopewise.errors import ConfigError, ModelError
from scopewise.models.generate import generate
from scopewise.models.load import load_model, save_model
from scopewise.models.tiny import build_tiny
from scopewise.models.vocabulary import padding_id

TRAINING = {"learning_rate": 1e-2, "max_steps": 2, "use_cpu": True, "disable_tqdm": True}


def padded(tokenizer: Any) -> Any:
    """A padding token that the model has no embedding for."""
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def test_padding_beyond_the_vocabulary_changes_no_number(tiny: Any, forget: Any, retain: Any) -> None:
    model, tokenizer = tiny
    prompts = [tuple(range(5, 9)), tuple(range(5, 20))]

    def measured() -> Any:
        return evaluate(model, tokenizer, forget=forget, retain=retain).metrics, generate(
            forward_of(model), tokenizer, prompts, 8
        )

    wanted = measured()
    padded(tokenizer)
    assert tokenizer.pad_token_id == 300 == model.config.vocab_size
    assert padding_id(model, tokenizer) == 0
    assert measured() == wanted


@pytest.mark.parametrize("method", ["ga_kl", "rmu", "memflex", "random_labels"])
@pytest.mark.parametrize("peft_config", ["lora", None])
def test_training_with_padding_beyond_the_vocabulary(
    method: str, peft_config: Any, tiny: Any, forget: Any, retain: Any, tmp_path: Any
) -> None:
    """It trains, and what comes out can be saved and loaded again."""
    model, tokenizer = tiny[0], padded(tiny[1])
    got = unlearn(model, tokenizer, forget, retain, method, peft_config=peft_config, **TRAINING)
    if peft_config is None:
        save_model(got, tokenizer, tmp_path)
        again = load_model(tmp_path)
        assert torch.equal(next(iter(again.parameters())), next(iter(got.parameters())))


def test_a_tokenizer_of_another_model_is_refused(tiny: Any, forget: Any, retain: Any, benchmark_rows: Any) -> None:
    longer = build_tiny([row.question + row.answer for row in benchmark_rows], TinyConfig(vocab_size=400, width=32), 0)[
        1
    ]
    for call in (
        lambda: unlearn(tiny[0], longer, forget, retain, **TRAINING),
        lambda: evaluate(tiny[0], longer, forget=forget, retain=retain),
        lambda: localize(tiny[0], longer, forget, retain),
    ):
        with pytest.raises(ModelError, match="model: .* 300 tokens, .* tokenizer "):
            call()


def test_a_special_token_is_refused_where_a_row_has_it(tiny: Any, forget: Any, retain: Any) -> None:
    model, tokenizer = tiny
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    evaluate(model, tokenizer, forget=forget, retain=retain)
    with pytest.raises(ModelError, match=r"id 300 \(<\|turn\|>\)"):
        evaluate(model, tokenizer, forget=forget, retain=retain, prompt="<|turn|>{question}")


def test_smoothed_labels_are_refused(tiny: Any, forget: Any, retain: Any) -> None:
    with pytest.raises(ConfigError, match=r"label_smoothing_factor: 0\.1"):
        unlearn(*tiny, forget, retain, label_smoothing_factor=0.1, **TRAINING)
