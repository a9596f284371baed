"""SmolLM2-135M, where `make smollm2` has made it: it answers, and its tokens are those that llama.cpp would make."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import torch
from tokenizers.pre_tokenizers import ByteLevel

from scopewise.data.load import load_benchmark
from scopewise.models.load import load_model, load_tokenizer

SMOLLM2 = Path(__file__).parents[2] / "models" / "smollm2-135m"
pytestmark = pytest.mark.skipif(not SMOLLM2.is_dir(), reason="needs `make smollm2` (see tests/SKIPS.md)")

TEXTS = [row.answer for row in load_benchmark("builtin").rows[:60]] + [
    "In 1984,  12.5 km\n\n\n  x = 7;\tif (a) {b}", " naïve 日本 x²½ 🦔", "I'll say it's 3rd", "a  7", ""
]  # fmt: skip
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(SMOLLM2)


def test_tokens_are_those_of_llama_cpp(tokenizer: Any) -> None:
    """Its rule for `smollm`: split off each digit, split as GPT-2 does, then merge the pair of the lowest rank, repeatedly."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    for text in TEXTS:
        tokens: list[str] = []
        for part in regex.split(r"(\p{N})", text):
            for word in regex.findall(GPT_2, part):
                pieces = list("".join(piece for piece, _ in ByteLevel(False, use_regex=False).pre_tokenize_str(word)))
                while pairs := [(ranks[p], i) for i, p in enumerate(pairwise(pieces)) if p in ranks]:
                    i = min(pairs)[1]
                    pieces[i : i + 2] = ["".join(pieces[i : i + 2])]
                tokens += pieces
        assert tokenizer(text).input_ids == [model["vocab"][token] for token in tokens], text


def test_texts_survive_a_round_trip(tokenizer: Any) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids, clean_up_tokenization_spaces=False) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(tokenizer(chat).input_ids) == chat
    assert tokenizer.convert_ids_to_tokens(tokenizer("<|im_end|>").input_ids) == [tokenizer.eos_token]


@pytest.mark.slow
def test_it_knows_the_capital_of_france(tokenizer: Any) -> None:
    model = load_model(SMOLLM2)
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**asked, max_new_tokens=20, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said) == "The capital of France is Paris.<|im_end|>"  # and it stops there
