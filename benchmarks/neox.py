"""An untrained GPT-NeoX of the tiny model's size, to see whether something holds on a second architecture.

    python benchmarks/neox.py runs/neox ROWS.jsonl [--seed 0]
    python benchmarks/robust.py runs/other --set model.path=runs/neox --set data.benchmark=jsonl --set data.path=ROWS.jsonl

Unlike the Llama that is the tiny model, it has layer norms with biases, rotary positions on a quarter of each head, attention
and MLP in parallel, and embeddings that are not tied. Its tokenizer is trained on the rows, as the tiny model's is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from scopewise.config import TinyConfig
from scopewise.data.load import load_benchmark
from scopewise.models.load import save_model
from scopewise.models.tiny import build_tokenizer, tokenizer_texts


def make(folder: Path, rows: str, seed: int) -> int:
    """Write the model; return its number of parameters."""
    sizes = TinyConfig()
    tokenizer = build_tokenizer(tokenizer_texts(load_benchmark("jsonl", rows).rows), sizes.vocab_size)
    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    save_model(model, tokenizer, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main(words: Sequence[str] | None = None) -> None:
    """Write the model and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    print(f"{given.folder}: {make(given.folder, given.rows, given.seed) / 1e6:.1f} million parameters")


if __name__ == "__main__":
    main()
