"""What each of two processes does in `test_processes.py`: gradients of a model that both hold a half of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from engines import forward_of
from scopewise.config import LoraSection, TinyConfig
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.parallel.fsdp import full_tensor, shard_model
from scopewise.models.parallel.processes import is_main
from scopewise.models.tiny import build_tiny
from scopewise.ops import token_log_probs


def held(model: nn.Module) -> float:
    """Return the share (0-1) of the parameters that this process holds."""
    local = sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters())
    return local / sum(p.numel() for p in model.parameters())


def main() -> None:
    """Print the largest difference of a gradient to that of the same model in one piece, the largest gradient, and `held`."""
    base, _ = build_tiny(["a few words"], TinyConfig(vocab_size=300, width=32, layers=2, heads=2, context=64), 0)
    model = with_adapter(base, lora_config(LoraSection(r=2, lora_dropout=0.0)), 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    batch = collate(
        [Encoded(Row("q", "a", "forget"), (3, 4, 5), (6, 7, 8)), Encoded(Row("q", "a", "forget"), (9, 8), (7,))]
    )
    (-token_log_probs(forward_of(model).logits(batch), batch["label"])).mean().backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    shard_model(model)
    shares = [held(model)]
    assert not forward_of(model).chunked  # a head in parts is none to be called on its own
    with torch.no_grad():
        forward_of(model).nll(batch)
    shares.append(held(model))
    forward_of(model).nll(batch).mean().backward()
    found = {n: full_tensor(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    worst = max(float((found[n] - expected[n]).abs().max()) for n in expected)
    largest = max(float(g.abs().max()) for g in expected.values())
    if is_main():
        sys.stdout.write(json.dumps({"worst": worst, "largest": largest, "held": shares}) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
