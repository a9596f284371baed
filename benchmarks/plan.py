"""What unlearning would cost on a model and a card that are not here: operations counted exactly, the rate assumed.

    python benchmarks/plan.py [--shape llama2-70b] [--peak 989e12] [--utilisation 0.2 0.5] [--cards 4] [--price 3]

The shape is built without weights (`meta` device), with LoRA r 8 on all linear layers, and the operations of each task are
those of `scopewise.models.flops.needed`. Seconds are operations over peak x utilisation x cards: an assumption, marked as
such, until `gpu.py` has been run on such a card. Nothing here is measured. Markdown on stdout.
"""

from __future__ import annotations

import argparse

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scopewise.config import LoraSection
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.architecture import lm_head
from scopewise.models.flops import count_flops

SIZES = {  # width, MLP, layers, heads, key-value heads, words
    "llama2-7b": (4096, 11008, 32, 32, 32, 32000),
    "llama2-70b": (8192, 28672, 80, 64, 8, 32000),
}
TOKENS, ANSWER = 45, 30
"""Of a row of KnowUnDo, and of its answer."""


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SIZES), default="llama2-70b")
    parser.add_argument("--peak", type=float, default=989e12, help="operations per second of a card's data sheet, bf16")
    parser.add_argument("--utilisation", type=float, nargs=2, default=(0.2, 0.5), help="of that, at worst and at best")
    parser.add_argument("--cards", type=int, default=4)
    parser.add_argument("--price", type=float, default=3.0, help="of a card for an hour")
    parser.add_argument("--requests", type=int, default=10_000, help="in a month, each of 7 forget and 7 retain rows")
    given = parser.parse_args()
    width, mlp, layers, heads, kv, vocab = SIZES[given.shape]
    with torch.device("meta"):
        base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=4096,
                bos_token_id=1, eos_token_id=2, pad_token_id=0,
            )
        )  # fmt: skip
        model = with_adapter(base, lora_config(LoraSection()))
    head = lm_head(model)
    adapter = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    parameters = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)

    def row() -> float:
        token, pair, answer = count_flops(model, head)
        return token * TOKENS + pair * TOKENS**2 + answer * ANSWER

    both = row()
    with torch.no_grad():
        forward = row()
    linear = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n and p.dim() == 2 and "layers." in n)
    print(f"{given.shape}: {parameters / 1e9:.1f}e9 parameters, adapter {adapter / 1e6:.1f}e6\n")
    print("| What is held | GB |\n|---|---:|")
    for name, count in (
        ("base in bf16", 2 * parameters),
        ("base in NF4 (4.13 bits a weight), the rest in bf16", linear * 4.127 / 8 + 2 * (parameters - linear)),
        ("adapter, its gradient and AdamW's state in float32", 16 * adapter),
        ("an adapter on disk", 4 * adapter),
        ("two gradients of all matrices in float32 (localization without LoRA)", 8 * linear),
    ):
        print(f"| {name} | {count / 1e9:.1f} |")
    tasks = {
        "localize KnowUnDo privacy (400 + 441 rows)": 841 * both,
        "GA + descent, 2 epochs of 400 pairs": 1600 * both,
        "GA + KL, the same": 1600 * both + 800 * forward,
        "score its 218 val rows": 218 * forward,
        "score 3e6 tokens of general ability": 3e6 / TOKENS * forward,
        f"{given.requests} requests alone: localize once, 2 epochs, score 218 rows": given.requests
        * (14 * both + 28 * both + 218 * forward),
        f"{given.requests} requests in 30 daily batches, each scored on all val rows and general ability": given.requests
        * 42 * both + 30 * (3e6 / TOKENS + 218) * forward,
        "testing every earlier request after each": given.requests**2 / 2 * 14 * forward,
    }  # fmt: skip
    print(f"\n| Task | operations | hours of {given.cards} cards, worst to best | price |\n|---|---:|---:|---:|")
    for name, operations in tasks.items():
        hours = [operations / (given.peak * u * given.cards) / 3600 for u in given.utilisation]
        prices = [h * given.cards * given.price for h in hours]
        print(f"| {name} | {operations:.2g} | {hours[0]:.3g} to {hours[1]:.3g} | {prices[0]:.3g} to {prices[1]:.3g} |")


if __name__ == "__main__":
    main()
