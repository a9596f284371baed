"""An untrained GPT-NeoX of the tiny model's size, to see whether something holds on a second architecture.

    python benchmarks/neox.py runs/neox [--run-file FILE] [--set KEY=VALUE]
    python benchmarks/robust.py runs/robust_neox --set model.path=runs/neox

Unlike the Llama that is the tiny model, it has layer norms with biases, rotary positions on a quarter of each head, attention
and MLP in parallel, and embeddings that are not tied. Its tokenizer is trained on the rows, as the tiny model's is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from scopewise.config import RunConfig
from scopewise.data.load import load_benchmark
from scopewise.models.load import save_model
from scopewise.models.tiny import build_tokenizer, tokenizer_texts
from scopewise.run_file import load_config


def make(folder: Path, config: RunConfig) -> int:
    """Write the model for a run's rows, sizes and seed; return its number of parameters."""
    sizes, data = config.model.tiny, config.data
    rows = load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances).rows
    tokenizer = build_tokenizer(tokenizer_texts(rows), sizes.vocab_size)
    torch.manual_seed(config.run.seed)
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
    parser.add_argument("--run-file", default="knowundo_privacy_tiny_robust")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    given = parser.parse_args(words)
    made = make(given.folder, load_config(given.run_file, given.changes))
    print(f"{given.folder}: {made / 1e6:.1f} million parameters")


if __name__ == "__main__":
    main()
