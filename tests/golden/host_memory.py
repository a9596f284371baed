"""What each of two processes does in `test_processes.py`: load a model from its file, spread it, and say what it took."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scopewise.models.load import load_model
from scopewise.models.parallel.fsdp import shard_model
from scopewise.models.parallel.processes import processes


def own_memory() -> int:
    """Return the bytes that are this process's own; pages of a file are there once for all processes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssAnon"].split()[0])


def most_of(stop: threading.Event, found: list[int]) -> None:
    """Look at the memory until told to stop."""
    while not stop.wait(0.002):
        found[0] = max(found[0], own_memory())


def main() -> None:
    """Print what a process of its own took at most, as a multiple of the model's bytes as they are stored."""
    torch.set_num_threads(1)
    path, how = sys.argv[1:]
    shape = LlamaConfig(
        vocab_size=500, hidden_size=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=12
    )
    if processes().is_main_process:
        LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(path)
    processes().wait_for_everyone()
    before, stop = own_memory(), threading.Event()
    found = [before]
    watch = threading.Thread(target=most_of, args=(stop, found))
    watch.start()
    model = load_model(path)
    size = sum(2 * p.numel() for p in model.parameters())
    shard_model(model.requires_grad_(how == "train"), train=how == "train")
    stop.set()
    watch.join()
    taken = torch.tensor([(found[0] - before) / size])
    torch.distributed.all_reduce(taken, torch.distributed.ReduceOp.MAX)
    if processes().is_main_process:
        sys.stdout.write(json.dumps({"taken": float(taken)}) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
