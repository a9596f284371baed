"""The tiny model: about 4 million parameters and a tokenizer of its own, so that everything runs on a laptop's CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scopewise.config import TinyConfig
from scopewise.data.rows import Row


def build_tiny(texts: Sequence[str], config: TinyConfig, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Make an untrained tiny Llama and train a byte-level BPE tokenizer on `texts`.

    Args:
        texts: Texts to train the tokenizer on; since it is byte-level, it encodes any other text too.
        config: Sizes. The defaults give about 4.2 million parameters (embeddings tied).
        seed: Of the initial weights.

    Returns:
        The model in float32 and its tokenizer with BOS, EOS, padding and a minimal chat template.
    """
    tokenizer = build_tokenizer(texts, config.vocab_size)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_shape(config, len(tokenizer), tokenizer))
    return model, tokenizer


def tiny_shape(config: TinyConfig, vocab_size: int, tokenizer: PreTrainedTokenizerFast | None = None) -> LlamaConfig:
    """Return the architecture of the tiny model, with a tokenizer's vocabulary and special tokens."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=round(config.width * 8 / 3 / 16) * 16,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=None if tokenizer is None else tokenizer.bos_token_id,
        eos_token_id=None if tokenizer is None else tokenizer.eos_token_id,
        pad_token_id=None if tokenizer is None else tokenizer.pad_token_id,
    )


def tokenizer_texts(rows: Iterable[Row]) -> list[str]:
    """Return the text of the rows, both scopes: the vocabulary of a model that "read" the benchmark."""
    return [text for row in rows for text in (row.question, row.answer)]


def build_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; fewer texts than `vocab_size` merges give a smaller vocabulary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return tokenizer
