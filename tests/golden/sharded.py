"""What each of two processes does in `test_processes.py`: gradients of a model whose parameters are spread over both."""

from __future__ import annotations

import json
import sys

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from scopewise.config import LoraSection, TinyConfig
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.forward import answer_logits, decoder_blocks
from scopewise.models.head import answer_nll, needs_chunks
from scopewise.models.tiny import build_tiny
from scopewise.ops import token_log_probs


def main() -> None:
    """Print the largest difference of a gradient to that of the same model in one piece, and the largest gradient."""
    mesh = init_device_mesh("cpu", (2,))
    base, _ = build_tiny(["a few words"], TinyConfig(vocab_size=300, width=32, layers=2, heads=2, context=64), 0)
    model = with_adapter(base, lora_config(LoraSection(r=2, dropout=0.0)), 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    batch = collate(
        [Encoded(Row("q", "a", "forget"), (3, 4, 5), (6, 7, 8)), Encoded(Row("q", "a", "forget"), (9, 8), (7,))]
    )
    (-token_log_probs(answer_logits(model, batch), batch["label"])).mean().backward()
    whole = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for block in decoder_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert not needs_chunks(model, 10**9)  # a head in parts is none to be called on its own
    answer_nll(model, batch).mean().backward()
    found = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == whole.keys()
    worst = max(float((found[n] - whole[n]).abs().max()) for n in whole)
    largest = max(float(g.abs().max()) for g in whole.values())
    if mesh.get_rank() == 0:
        sys.stdout.write(json.dumps({"worst": worst, "largest": largest}) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
