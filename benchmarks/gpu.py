"""Speed, use of the device and memory of a 7B, against the paper's loops (`restated.py`) on the same card.

    python benchmarks/gpu.py [--shape llama2-7b] [--device cuda] [--out FILE]

A LLaMA-2-7B with random weights in bf16, LoRA r 8 on all linear layers, rows as long as KnowUnDo's (mean 45 tokens, at
most 256). Localization, the gradient of an unlearning step and scoring: both sides do the same work in turns and must
give the same numbers. Then the peak memory of three optimiser steps of 16 rows for GA + descent, GA + KL and NPO, and on
a base in 4 bits. Under 8 minutes on one card; `--shape tiny --device cpu` is the same script in seconds.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

import restated
from scopewise.cost import Cost
from scopewise.data.batch import to_device
from scopewise.data.prompt import Encoded
from scopewise.data.rows import FORGET, RETAIN
from scopewise.evaluation import score
from scopewise.files import write_json
from scopewise.localizers.gradient import Gradient
from scopewise.models.engine import Engine
from scopewise.models.flops import matrix_rate
from scopewise.models.gradients import _corrupted
from scopewise.ops import cosine
from scopewise.record import manifest
from scopewise.region import parameter_name
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer
from shapes import SHAPES, Shape, adapted, random_model, random_rows, some_tokenizer

GOALS = {"ratio": 20.0, "utilisation": 0.5, "memory_gigabytes": 18.0, "qlora_gigabytes": 9.0}
PER_STEP = 16
REPEATS = 3
LEAST_COSINE = {torch.float32: 0.9999, torch.bfloat16: 0.98}
LARGEST_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


class Bench:
    """Model, rows and device, and the comparisons."""

    def __init__(
        self, shape: Shape, device: torch.device, dtype: torch.dtype, rows: int, rounds: int, seed: int
    ) -> None:
        self.shape, self.device, self.dtype, self.rounds, self.seed = shape, device, dtype, rounds, seed
        self.base = random_model(shape, dtype, device, seed)
        self.model = adapted(self.base, seed, trained=True)
        self.forget = random_rows(rows, shape.vocab, FORGET, seed)
        self.retain = random_rows(rows, shape.vocab, RETAIN, seed)
        self.tokenizer = some_tokenizer()

    def compared(self, what: str, theirs: Callable[[], object], ours: Callable[[], object]) -> dict[str, Any]:
        """Time both sides in turns; tokens per second and use of the device of each, from the operations needed."""
        taken: dict[str, list[float]] = {"restated": [], "scopewise": []}
        work = Cost()
        with work, work.step():
            ours()  # counted once, outside of what is timed
        for number in range(self.rounds):
            for side, function in (("restated", theirs), ("scopewise", ours)):
                self.wait()
                start = time.perf_counter()
                function()
                self.wait()
                taken[side].append(time.perf_counter() - start)
            print(f"{what}: round {number + 1}: { {k: round(v[-1], 3) for k, v in taken.items()} }", file=sys.stderr)
        ceiling = matrix_rate(self.device, self.dtype)
        found: dict[str, Any] = {
            "tokens": work.work.tokens,
            "operations": work.work.operations,
            "peak_bytes": work.peak_memory_bytes,
        }
        for side, seconds in taken.items():
            median = statistics.median(seconds)
            found[side] = {
                "seconds": median,
                "all_seconds": seconds,
                "tokens_per_second": work.work.tokens / median,
                "utilisation": work.work.operations / median / ceiling,
            }
        found["ratio"] = found["restated"]["seconds"] / found["scopewise"]["seconds"]
        return found

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def agree(self, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
        """Return the cosine over all entries; raise SystemExit where the direction differs."""
        names = sorted(theirs)
        flat = [torch.cat([side[n].float().cpu().flatten() for n in names]) for side in (theirs, ours)]
        angle = cosine(*flat)
        if sorted(ours) != names or angle is None or angle < LEAST_COSINE[self.dtype]:
            raise SystemExit(f"gradients disagree: cosine {angle}")
        return angle

    def localization(self) -> dict[str, Any]:
        """Eq. 8's averaged gradient of the forget rows, three corrupted copies of each."""
        localizer = Gradient(corrupt="inputs", repeats=REPEATS)
        generator = torch.Generator().manual_seed(self.seed)
        many = [_corrupted(item, self.shape.vocab, generator) for _ in range(REPEATS) for item in self.forget]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        theirs = restated.localization_gradient(self.model, many, 0)
        engine = Engine(self.model, self.tokenizer)
        ours = localizer.gradients(engine, self.forget, self.seed)
        angle = self.agree({parameter_name(n): g for n, g in theirs.items()}, ours)
        found = self.compared(
            "localization",
            lambda: restated.localization_gradient(self.model, many, 0),
            lambda: localizer.gradients(engine, self.forget, self.seed),
        )
        return {**found, "cosine": angle}

    def trainer(self, model: PeftModel, method: str, folder: str, **args: Any) -> UnlearningTrainer:
        """Return a trainer on the rows."""
        given = {
            "output_dir": folder,
            "seed": self.seed,
            "disable_tqdm": True,
            "use_cpu": self.device.type == "cpu",
            **args,
        }
        return UnlearningTrainer(
            model,
            method=method,
            args=UnlearningConfig(**given),
            forget_dataset=self.forget,
            retain_dataset=self.retain,
            processing_class=self.tokenizer,
            region="all",
        )

    def step(self) -> dict[str, Any]:
        """The gradient of one GA + descent step of 16 rows."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(self.model, "ga_descent", folder)
            model = self.model.eval()
            indices = list(trainer._get_train_sampler())[:PER_STEP]
            rows: Any = trainer.train_dataset
            items = [rows.item(i) for i in indices]
            factors = [-1.0 if i < len(rows.forget) else 1.0 for i in indices]

            def ours() -> None:
                model.zero_grad()
                batches, count = trainer.get_batch_samples(iter([trainer.data_collator(indices)]), 1, self.device)
                trainer.training_step(model, to_device(batches[0], self.device), count)

            def theirs() -> None:
                model.zero_grad()
                restated.step_gradient(model, items, factors, 0)

            gradients = []
            for side in (theirs, ours):
                side()
                gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            return {"cosine": self.agree(*gradients), **self.compared("step", theirs, ours)}

    def scoring(self) -> dict[str, Any]:
        """Accuracy and log-probability of all rows."""
        items: Sequence[Encoded] = [*self.forget, *self.retain]
        model = self.model.eval()
        theirs = restated.score_rows(model, self.tokenizer, items, 0)
        engine = Engine(model, self.tokenizer)
        ours = score(engine, items)
        pairs = [(a.mean_log_prob, statistics.mean(b.log_probs)) for a, b in zip(theirs, ours, strict=True)]
        worst = max(abs(a - b) for a, b in pairs)
        if worst > LARGEST_DIFFERENCE[self.dtype]:
            raise SystemExit(f"scores disagree by {worst}")
        found = self.compared(
            "scoring",
            lambda: restated.score_rows(model, self.tokenizer, items, 0),
            lambda: score(engine, items),
        )
        return {**found, "largest_difference_nats": worst}

    def memory(self, method: str, base: PreTrainedModel, checkpointing: bool = False) -> dict[str, Any]:
        """Three whole optimiser steps of 16 rows from a fresh adapter: peak memory, and what it was idle."""
        model = adapted(base, self.seed, trained=False)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        idle = torch.cuda.memory_allocated() if self.device.type == "cuda" else None
        with tempfile.TemporaryDirectory() as folder, Cost() as cost:
            trainer = self.trainer(model, method, folder, max_steps=3, activation_checkpointing=checkpointing)
            trainer.train()
        loss = trainer.state.log_history[-1]["train_loss"]
        model.unload()
        return {"peak_bytes": cost.peak_memory_bytes, "idle_bytes": idle, "train_loss": loss}


def four_bit(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Pack the linear layers of the decoder blocks in NF4, in place: what loading with `quantization: nf4` gives."""
    import bitsandbytes as bnb

    for block in model.model.layers:  # type: ignore[union-attr]
        for parent in block.modules():
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    packed = bnb.nn.Linear4bit(
                        child.in_features,
                        child.out_features,
                        bias=False,
                        compute_dtype=torch.bfloat16,
                        quant_type="nf4",
                    )
                    weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4")
                    packed.weight = weight
                    setattr(parent, name, packed.to(device))
    model.is_loaded_in_4bit = model.is_quantized = True  # type: ignore[assignment]
    return model


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), default="llama2-7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", type=int, default=32, help="rows per scope")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "gpu.json"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and write the results."""
    given = parse(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --shape tiny --device cpu runs the same script in small")
    start = time.perf_counter()
    device = torch.device(given.device)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    bench = Bench(SHAPES[given.shape], device, dtype, given.rows, given.rounds, given.seed)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    document: dict[str, Any] = {
        "manifest": {**manifest(None, None), "device": name},
        "shape": given.shape,
        "parameters": sum(p.numel() for p in bench.base.parameters()),
        "dtype": str(dtype).removeprefix("torch."),
        "rows_per_scope": given.rows,
        "mean_tokens": statistics.mean(len(item) for item in (*bench.forget, *bench.retain)),
        "rounds": given.rounds,
        "seed": given.seed,
        "ceiling_flops_per_second": matrix_rate(device, dtype),
        "goals": GOALS,
        "results": {},
    }
    results = document["results"]
    for what in (bench.localization, bench.step, bench.scoring):
        results[what.__name__] = what()
        write_json(given.out, document)  # what is known stays, whatever comes later
    base = bench.model.unload()
    for method in ("ga_descent", "ga_kl", "npo"):
        results[f"memory, {method}"] = bench.memory(method, base)
        write_json(given.out, document)
    results["memory, ga_kl, checkpointing"] = bench.memory("ga_kl", base, checkpointing=True)
    if given.device == "cpu":
        results["memory, qlora"] = {"skipped": "4 bits are for GPUs"}
    elif importlib.util.find_spec("bitsandbytes") is None:
        results["memory, qlora"] = {"skipped": "bitsandbytes is not installed"}
    else:
        results["memory, qlora"] = bench.memory("ga_descent", four_bit(base, device), checkpointing=True)
    document["seconds"] = time.perf_counter() - start
    write_json(given.out, document)
    print(table(results, name, document["ceiling_flops_per_second"]))


def table(results: dict[str, Any], device: str, ceiling: float) -> str:
    """Return the results in Markdown."""
    lines = [
        f"{device}; measured matrix rate {ceiling / 1e12:.3g} TFLOP/s",
        "",
        "| Comparison | restated tokens/s | scopewise tokens/s | ratio | utilisation, restated | scopewise |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, entry in results.items():
        if "ratio" in entry:
            a, b = entry["restated"], entry["scopewise"]
            lines.append(
                f"| {name} | {a['tokens_per_second']:.0f} | {b['tokens_per_second']:.0f} | {entry['ratio']:.1f} | "
                f"{a['utilisation']:.1%} | {b['utilisation']:.1%} |"
            )
    lines += ["", "| Peak memory, 10^9 bytes | |", "|---|---:|"]
    for name, entry in results.items():
        if name.startswith("memory"):
            shown = f"{entry['peak_bytes'] / 1e9:.2f}" if "peak_bytes" in entry else entry["skipped"]
            lines.append(f"| {name.removeprefix('memory, ')} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
