"""Time and memory of scopewise against the paper's loops (`restated.py`), on the same rows and the same model.

    python benchmarks/speed.py --data ../shared/data/knowundo_privacy [--model RUN/target] [--instances N] [--rows N]
        [--out FILE]

Four comparisons, each verified (both sides must give the same numbers) and each a ratio of medians from rounds in which
the two sides take turns: localization, the gradient of an unlearning step, scoring, generation. SPEED.md says what is in and
what is not. Markdown on stdout, JSON in `--out`, progress on stderr. CPU, float32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

import restated
from memory import alone, peak_of
from scopewise.allocator import keep_freed_memory
from scopewise.config import LoraSection, ModelSection, TinyConfig
from scopewise.data.batch import length_batches
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark
from scopewise.evaluation import score
from scopewise.files import write_json
from scopewise.localizers.gradient import Gradient
from scopewise.metrics.base import Answered
from scopewise.metrics.success import RetentionSuccess, UnlearnSuccess
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.architecture import lm_head, unwrap
from scopewise.models.engine import Engine
from scopewise.models.flops import FlopCounter, count_flops, matrix_rate
from scopewise.models.gradients import CPU_TOKENS, _corrupted
from scopewise.models.load import load_model, load_tokenizer
from scopewise.models.precision import float32_masters
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.ops import cosine
from scopewise.record import manifest
from scopewise.region import parameter_name
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

GOALS = {"localization": 10.0, "unlearning step": 10.0, "scoring": 10.0}
PRETRAINED_GOALS = dict.fromkeys((*GOALS, "generation"), 5.0)
"""With `--model`: generation has no goal on a tiny model, whose time goes into calls."""
REPEATS_PAPER_CODE = 3
REPEATS_DEFAULT = 5
MEMORY_ROWS = 16
LEAST_COSINE = 0.9999
LARGEST_DIFFERENCE = 1e-4
NEW_TOKENS = 64
LEAST_SAME_TEXTS = 0.9
"""Of the greedy answers: sums in another order change an arg-max now and then."""

Gradients = dict[str, Tensor]
Seconds = tuple[float, float]
"""Wall and processor seconds."""


@dataclass
class Setup:
    """What every comparison works on: the model with its adapter, its tokenizer, and the tokenised rows."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    benchmark: Benchmark
    seed: int

    def rows(self, scope: str | None, split: str) -> list[Encoded]:
        """Return the tokenised rows of a scope and a split."""
        return encode(self.benchmark.select(scope, split), self.tokenizer)

    @functools.cached_property
    def engine(self) -> Engine:
        """Our side's engine."""
        return Engine(self.model, self.tokenizer)

    @property
    def pad_id(self) -> int:
        """What the restated loops pad with: end of sequence, as the paper's code."""
        return int(self.tokenizer.eos_token_id)

    @property
    def vocab_size(self) -> int:
        """Size of the head."""
        return self.engine.forward.vocab_size


def prepare(data: str, model: str | None, seed: int, threads: int, instances: int | None = None) -> Setup:
    """Load rows and model; add LoRA with small random B, since at B = 0 no A has a gradient to compare."""
    torch.set_num_threads(threads)
    benchmark = load_benchmark("knowundo", data, "privacy", instances=instances)
    base: Any
    tokenizer: PreTrainedTokenizerBase
    if model is None:
        base, tokenizer = build_tiny(tokenizer_texts(benchmark.rows), TinyConfig(), seed)
    else:
        base, tokenizer = load_model(model, ModelSection(dtype="float32")), load_tokenizer(model)
    peft_model = with_adapter(base, lora_config(LoraSection(lora_dropout=0.0)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
                parameter.requires_grad_(True)
            elif "lora_A" in name:
                parameter.requires_grad_(True)
    return Setup(peft_model.eval(), tokenizer, benchmark, seed)


def interleaved(
    restated_side: Callable[[], object], our_side: Callable[[], object], rounds: int, what: str
) -> dict[str, Any]:
    """Time both sides in turns, `rounds` times each, and return what `timing` makes of it."""
    taken: dict[str, list[Seconds]] = {"restated": [], "scopewise": []}
    with FlopCounter() as work:
        our_side()
    for number in range(rounds):
        for side, function in (("restated", restated_side), ("scopewise", our_side)):
            taken[side].append(timed(function))
        last = ", ".join(f"{side} {values[-1][0]:.2f} s" for side, values in taken.items())
        print(f"{what}: round {number + 1} of {rounds}: {last}", file=sys.stderr)
    summary = timing(taken)
    return {**summary, **use_of_processor(work.operations, summary["scopewise"]["median"])}


def use_of_processor(operations: float, seconds: float) -> dict[str, float]:
    """Return the operations that our side needs, and its share of what large matrix products would have done in its time."""
    rate = matrix_rate.__wrapped__(torch.device("cpu"), torch.float32)  # measured now, not once for all
    return {
        "operations": operations,
        "matrix_rate_per_second": rate,
        "flops_utilisation": operations / seconds / rate,
    }


def padded_operations(setup: Setup, rows: int, length: int, backward: bool) -> float:
    """Return the operations of the restated loop: every row at full length, with logits at every position."""
    with torch.set_grad_enabled(backward):
        per_token, per_pair, per_answer = count_flops(unwrap(setup.model), lm_head(setup.model))
    return rows * (length * (per_token + per_answer) + length**2 * per_pair)


def timed(function: Callable[[], object]) -> Seconds:
    """Return the wall and the processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def timing(taken: dict[str, list[Seconds]]) -> dict[str, Any]:
    """Return least and median wall seconds of each side, the ratio of medians, and that of processor seconds.

    Other work on the machine does not count in processor seconds, but active waiting of threads does.
    """
    summary: dict[str, Any] = {}
    for side, values in taken.items():
        wall, processor = [v[0] for v in values], [v[1] for v in values]
        summary[side] = {
            "min": min(wall),
            "median": statistics.median(wall),
            "all": wall,
            "processor_median": statistics.median(processor),
        }
    for key, name in (("median", "ratio"), ("processor_median", "processor_ratio")):
        summary[name] = summary["restated"][key] / summary["scopewise"][key]
    return summary


def agreement(theirs: Gradients, ours: Gradients) -> dict[str, float]:
    """Return how far two sets of gradients agree.

    `cosine` is over all entries. `max_relative_difference` is the largest over matrices of max|a - b| / max|a|. Raises
    SystemExit where the direction differs: a ratio of different work is no result.
    """
    if set(theirs) != set(ours):
        raise SystemExit(f"gradients of different matrices: {sorted(set(theirs) ^ set(ours))[:3]}")
    names = sorted(theirs)
    angle = cosine(torch.cat([theirs[n].flatten() for n in names]), torch.cat([ours[n].flatten() for n in names]))
    worst = max(float((theirs[n] - ours[n]).abs().max() / theirs[n].abs().max()) for n in names)
    if angle is None or angle < LEAST_COSINE:
        raise SystemExit(f"gradients disagree: cosine {angle}")
    return {"cosine": angle, "max_relative_difference": worst}


def named(gradients: Gradients) -> Gradients:
    """Return gradients under the names that regions use."""
    return {parameter_name(name): gradient for name, gradient in gradients.items()}


def sample(items: Sequence[Encoded], rows: int, seed: int) -> list[Encoded]:
    """Return a seeded random sample, or all for 0: representative of the lengths."""
    return list(items) if rows == 0 or rows >= len(items) else random.Random(seed).sample(list(items), rows)


def corrupted_rows(items: Sequence[Encoded], repeats: int, vocab_size: int, seed: int) -> list[Encoded]:
    """Return the rows that `Gradient(corrupt="inputs")` forwards: its own draws, in its own order."""
    generator = torch.Generator().manual_seed(seed)
    return [_corrupted(item, vocab_size, generator) for _ in range(repeats) for item in items]


def drawn_labels(
    items: Sequence[Encoded], repeats: int, vocab_size: int, seed: int, max_tokens: int
) -> list[tuple[int, ...]]:
    """Return the labels that `Gradient(corrupt="labels")` draws, by repeat and then by row, in its own batch order."""
    generator = torch.Generator().manual_seed(seed)
    labels: list[list[tuple[int, ...]]] = [[()] * len(items) for _ in range(repeats)]
    for indices in length_batches([len(item) for item in items], max_tokens):
        counts = [len(items[i].answer_ids) for i in indices]
        drawn = torch.randint(vocab_size, (repeats, sum(counts)), generator=generator).split(counts, dim=1)
        for i, of_row in zip(indices, drawn, strict=True):
            for repeat in range(repeats):
                labels[repeat][i] = tuple(of_row[repeat].tolist())
    return [label for of_repeat in labels for label in of_repeat]


def localization(setup: Setup, rows: int, rounds: int) -> dict[str, Any]:
    """Compare Eq. 8's averaged gradient in both readings, over both scopes."""
    scopes = [(sample(setup.rows(s, TRAIN), rows, setup.seed), setup.seed + i) for i, s in enumerate((FORGET, RETAIN))]
    model, vocab_size, pad_id, engine = setup.model, setup.vocab_size, setup.pad_id, setup.engine

    code = Gradient(corrupt="inputs", repeats=REPEATS_PAPER_CODE)
    given = [corrupted_rows(items, REPEATS_PAPER_CODE, vocab_size, seed) for items, seed in scopes]
    theirs = [named(restated.localization_gradient(model, many, pad_id)) for many in given]
    ours = [code.gradients(engine, items, seed) for items, seed in scopes]
    result = {
        "rows_per_scope": [len(items) for items, _ in scopes],
        "repeats": REPEATS_PAPER_CODE,
        "agreement": [agreement(a, b) for a, b in zip(theirs, ours, strict=True)],
        **interleaved(
            lambda: [restated.localization_gradient(model, many, pad_id) for many in given],
            lambda: [code.gradients(engine, items, seed) for items, seed in scopes],
            rounds,
            "localization",
        ),
    }
    padded = padded_operations(setup, sum(map(len, given)), restated.LOCALIZATION_LENGTH, True)
    result["operation_ratio"] = padded / result["operations"]

    # The plain loop of the default reading is five passes: one scope is enough.
    text = Gradient(corrupt="labels", repeats=REPEATS_DEFAULT)
    items, seed = scopes[0]
    labels = drawn_labels(items, REPEATS_DEFAULT, vocab_size, seed, min(engine.max_tokens, CPU_TOKENS))
    many = list(items) * REPEATS_DEFAULT
    plain = named(restated.localization_gradient(model, many, pad_id, labels))
    result["default_reading"] = {
        "rows": len(items),
        "repeats": REPEATS_DEFAULT,
        "agreement": [agreement(plain, text.gradients(engine, items, seed))],
        **interleaved(
            lambda: restated.localization_gradient(model, many, pad_id, labels),
            lambda: text.gradients(engine, items, seed),
            rounds,
            "localization, default reading",
        ),
    }
    default = result["default_reading"]
    padded = padded_operations(setup, len(many), restated.LOCALIZATION_LENGTH, True)
    default["operation_ratio"] = padded / default["operations"]
    return result


def make_trainer(setup: Setup, folder: str) -> UnlearningTrainer:
    """Return the trainer of GA + descent over all train rows, everything at its defaults, on the CPU."""
    return UnlearningTrainer(
        setup.model,
        method="ga_descent",
        args=UnlearningConfig(output_dir=folder, use_cpu=True, seed=setup.seed, disable_tqdm=True),
        forget_dataset=setup.rows(FORGET, TRAIN),
        retain_dataset=setup.rows(RETAIN, TRAIN),
        processing_class=setup.tokenizer,
    )


def sampled_steps(trainer: UnlearningTrainer, steps: int) -> list[list[int]]:
    """Return the first steps of epoch 0 as the trainer's own sampler orders them (steps are shuffled)."""
    per_step = trainer.args.per_device_train_batch_size
    order = list(trainer._get_train_sampler())
    return [order[start : start + per_step] for start in range(0, steps * per_step, per_step)]


def trainer_step(trainer: UnlearningTrainer, indices: list[int]) -> None:
    """Do what the trainer does for a step's gradient: collate, sum the weights, loss, backward. `training` is open."""
    collator: Any = trainer.data_collator  # of places, and not of dicts
    batches, count = trainer.get_batch_samples(iter([collator(indices)]), 1, torch.device("cpu"))
    trainer.compute_loss(trainer.model, batches[0], num_items_in_batch=count).backward()


@contextlib.contextmanager
def training(trainer: UnlearningTrainer) -> Iterator[None]:
    """Hold a model as the trainer does from the first step to the last; the restated loop gets it as it was."""
    with float32_masters(trainer.model), trainer.forward.kernels.training(trainer.model):
        yield


def rows_and_factors(trainer: UnlearningTrainer, indices: list[int]) -> tuple[list[Encoded], list[float]]:
    """Return the rows of a step and the sign of each."""
    data: Any = trainer.train_dataset
    return [data.item(i) for i in indices], [-1.0 if i < len(data.forget) else 1.0 for i in indices]


def take_gradients(model: nn.Module) -> Gradients:
    """Return the gradients of the trained parameters, and clear them."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    model.zero_grad()
    return found


def unlearning_step(setup: Setup, steps: int, rounds: int) -> dict[str, Any]:
    """Compare the gradient of several GA + descent steps of 16 rows."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setup, folder)
        model, pad_id = trainer.model.eval(), setup.pad_id
        chosen = sampled_steps(trainer, steps)
        rows = [rows_and_factors(trainer, indices) for indices in chosen]
        agreements, ratios = [], []
        work = FlopCounter()
        for indices, (items, factors) in zip(chosen, rows, strict=True):
            restated.step_gradient(model, items, factors, pad_id)
            theirs = take_gradients(model)
            with work, training(trainer):
                trainer_step(trainer, indices)
            ours = take_gradients(model)
            # The restated step divides each term by all rows, ours by the term's own rows.
            share = len(items) / sum(f < 0 for f in factors)
            agreements.append(agreement({n: g * share for n, g in theirs.items()}, ours))
        taken: dict[str, list[list[Seconds]]] = {"restated": [], "scopewise": []}  # by round, then by step
        for number in range(rounds):
            for values in taken.values():
                values.append([])
            for indices, (items, factors) in zip(chosen, rows, strict=True):
                taken["restated"][-1].append(timed(partial(restated.step_gradient, model, items, factors, pad_id)))
                model.zero_grad()
                with training(trainer):
                    taken["scopewise"][-1].append(timed(partial(trainer_step, trainer, indices)))
                model.zero_grad()
            print(f"unlearning step: round {number + 1} of {rounds}", file=sys.stderr)
        for step in range(len(chosen)):
            ratios.append(
                timing({side: [values[step] for values in of_side] for side, of_side in taken.items()})["ratio"]
            )
        per_step = {
            side: [(mean(v[0] for v in values), mean(v[1] for v in values)) for values in of_side]
            for side, of_side in taken.items()
        }
        summary = timing(per_step)
        needs = work.operations / len(chosen)
        return {
            "rows_per_step": len(chosen[0]),
            "operation_ratio": padded_operations(setup, len(chosen[0]), restated.TRAINING_LENGTH, True) / needs,
            "steps": len(chosen),
            "agreement": agreements,
            **summary,
            **use_of_processor(needs, summary["scopewise"]["median"]),
            "ratio_per_step": ratios,
            "median_step_ratio": statistics.median(ratios),
        }


def scoring(setup: Setup, rounds: int) -> dict[str, Any]:
    """Compare accuracy and log-probability of all val rows."""
    items = setup.rows(None, VAL)
    theirs = restated.score_rows(setup.model, setup.tokenizer, items, setup.pad_id)
    engine = setup.engine
    ours = score(engine, items, moments=False)

    def restated_success(scope: str) -> float:
        accuracy = [s.accuracy for s, item in zip(theirs, items, strict=True) if item.row.scope == scope]
        return 100.0 - mean(accuracy) if scope == FORGET else mean(accuracy)

    def our_success(scope: str) -> float:
        metric = UnlearnSuccess() if scope == FORGET else RetentionSuccess()
        value = metric.measure([a for a in ours if a.row.scope == scope]).value
        assert value is not None
        return value

    def mean_log_prob(row: Answered) -> float:
        return mean(row.log_probs)

    numbers = {
        "unlearn_success": [restated_success(FORGET), our_success(FORGET)],
        "retention_success": [restated_success(RETAIN), our_success(RETAIN)],
        "mean_log_prob": [
            mean(s.mean_log_prob for s in theirs),
            mean(map(mean_log_prob, ours)),
        ],
    }
    for name, (a, b) in numbers.items():
        if abs(a - b) > LARGEST_DIFFERENCE:
            raise SystemExit(f"scores disagree: {name} is {a} and {b}")
    result: dict[str, Any] = {
        "rows": len(items),
        "agreement": numbers,
        "largest_row_difference": max(
            abs(a.mean_log_prob - mean_log_prob(b)) for a, b in zip(theirs, ours, strict=True)
        ),
        "same_predicted_text": sum(a.predicted == b.predicted for a, b in zip(theirs, ours, strict=True)),
        **interleaved(
            lambda: restated.score_rows(setup.model, setup.tokenizer, items, setup.pad_id),
            lambda: score(engine, items, moments=False),
            rounds,
            "scoring",
        ),
    }
    padded = padded_operations(setup, len(items), restated.TRAINING_LENGTH, False)
    return {**result, "operation_ratio": padded / result["operations"]}


def generation(setup: Setup, rows: int, rounds: int) -> dict[str, Any]:
    """Compare greedy answers to the questions of val rows."""
    items = sample(setup.rows(None, VAL), rows, setup.seed)
    prompts = [item.prompt_ids for item in items]

    def plain() -> list[str]:
        return restated.continue_rows(setup.model, setup.tokenizer, items, setup.pad_id, NEW_TOKENS)

    def ours() -> list[str]:
        return [text for (text,) in setup.engine.generate(prompts, NEW_TOKENS)]

    same = sum(a == b for a, b in zip(plain(), ours(), strict=True))
    if same < LEAST_SAME_TEXTS * len(items):
        raise SystemExit(f"answers disagree: {same} of {len(items)} are the same")
    return {"rows": len(items), "same_texts": same, **interleaved(plain, ours, rounds, "generation")}


def memory_of_one(setup: Setup, what: str, side: str, batch: int) -> dict[str, int]:
    """Return the resident bytes before a piece of work on 16 rows, and the peak inside it. Run in a process of its own.

    A row is put through first, so that what the libraries allocate once is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        if what == "unlearning step":
            trainer = make_trainer(setup, folder)
            trainer.model.eval()
            indices = sampled_steps(trainer, 1)[0]
            items, factors = rows_and_factors(trainer, indices)
        elif what == "localization":
            items = sample(setup.rows(FORGET, TRAIN), MEMORY_ROWS, setup.seed)
        else:
            items = sample(setup.rows(None, VAL), MEMORY_ROWS, setup.seed)
        model, pad_id, length = setup.model, setup.pad_id, restated.TRAINING_LENGTH
        short = replace(items[0], prompt_ids=items[0].prompt_ids[:4], answer_ids=items[0].answer_ids[:4])
        enough = MEMORY_ROWS * restated.LOCALIZATION_LENGTH  # so that ours forwards all rows at once, too
        fits = {"localization": enough, "scoring": MEMORY_ROWS * length}.get(what, 4096)
        engine = Engine(model, setup.tokenizer, max_tokens=fits)
        work: Callable[[], object]
        if what == "localization":
            localizer = Gradient(corrupt="inputs", repeats=1)
            localizer.gradients(engine, [short], setup.seed)
            many = corrupted_rows(items, 1, setup.vocab_size, setup.seed)
            if side == "restated":
                work = lambda: restated.localization_gradient(model, many, pad_id, batch=batch)  # noqa: E731
            else:
                work = lambda: localizer.gradients(engine, items, setup.seed)  # noqa: E731
        elif what == "unlearning step":
            Gradient(repeats=1).gradients(engine, [short], setup.seed)
            if side == "restated":
                work = lambda: restated.step_gradient(model, items, factors, pad_id, batch=batch)  # noqa: E731
            else:

                def work() -> None:
                    with training(trainer):
                        trainer_step(trainer, indices)

        else:
            score(engine, [short], moments=False)
            if side == "restated":
                work = lambda: restated.score_rows(model, setup.tokenizer, items, pad_id, batch=batch)  # noqa: E731
            else:
                work = lambda: score(engine, items, moments=False)  # noqa: E731
        return peak_of(work)


def memory(what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure peak resident memory of both sides at 16 rows per forward, and of the restated loop at 1, each in a process."""
    found: dict[str, Any] = {"rows": MEMORY_ROWS}
    for key, side, batch in (
        ("restated_1_row", "restated", 1),
        ("restated_equal_batch", "restated", MEMORY_ROWS),
        ("scopewise", "scopewise", MEMORY_ROWS),
    ):
        print(f"memory: {what}, {key}", file=sys.stderr)
        given = ["--data", arguments.data, "--seed", str(arguments.seed), "--threads", str(arguments.threads)]
        given += ["--model", arguments.model] if arguments.model else []
        given += ["--instances", str(arguments.instances)] if arguments.instances else []
        measured = alone(__file__, [*given, "--memory-of", what, side, str(batch)])
        found[key] = {**measured, "added": measured["peak"] - measured["before"]}
    found["ratio"] = found["restated_equal_batch"]["added"] / max(1, found["scopewise"]["added"])
    return found


def verdict(goal: float | None, ratio: float) -> str:
    """Return whether a ratio reaches its goal, in words."""
    if goal is None:
        return ""
    return f"goal {goal:g}x: reached" if ratio >= goal else f"**goal {goal:g}x, measured {ratio:.1f}x**"


def table(results: dict[str, Any], goals: dict[str, float]) -> str:
    """Return the Markdown tables of time and memory."""
    entries = []
    for name, result in results.items():
        entries.append((name, result))
        if "default_reading" in result:
            entries.append((f"{name}, default reading", result["default_reading"]))
    lines = [
        "| Comparison | restated s (min / median) | scopewise s (same) | ratio of medians | of CPU time | of operations "
        "| of the matrix rate | agreement | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries:
        sides = [f"{entry[s]['min']:.3f} / {entry[s]['median']:.3f}" for s in ("restated", "scopewise")]
        if "agreement" not in entry:
            agrees = f"{entry['same_texts']} of {entry['rows']} texts the same"
        elif isinstance(entry["agreement"], list):
            least = min(a["cosine"] for a in entry["agreement"])
            worst = max(a["max_relative_difference"] for a in entry["agreement"])
            agrees = f"1 - cosine {1 - least:.1e}, max. rel. difference {worst:.1e}"
        else:
            difference = max(abs(a - b) for a, b in entry["agreement"].values())
            agrees = f"largest difference {difference:.1e}"
        factors = " | ".join(
            f"{entry[key]:.1f}x" if key in entry else "" for key in ("ratio", "processor_ratio", "operation_ratio")
        )
        factors += f" | {100 * entry['flops_utilisation']:.0f} %" if entry["operations"] else " | "
        lines.append(
            f"| {name} | {sides[0]} | {sides[1]} | {factors} | {agrees} | {verdict(goals.get(name), entry['ratio'])} |"
        )
    with_memory = [(name, entry["memory"]) for name, entry in results.items() if "memory" in entry]
    if with_memory:
        lines += [
            "",
            "| Peak memory over idle, MiB | restated, 1 row | restated, 16 rows | scopewise, 16 rows | ratio at 16 |",
            "|---|---|---|---|---|",
        ]
    for name, entry in with_memory:
        added = [entry[k]["added"] / 2**20 for k in ("restated_1_row", "restated_equal_batch", "scopewise")]
        lines.append(f"| {name} | {added[0]:.0f} | {added[1]:.0f} | {added[2]:.0f} | {entry['ratio']:.1f}x |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Time and memory of scopewise against the paper's loops.")
    parser.add_argument("--data", required=True, help="folder with the privacy rows of KnowUnDo")
    parser.add_argument("--model", help="a target made by `scopewise finetune`; none takes the untrained tiny model")
    parser.add_argument("--instances", type=int, help="take the rows of so many persons of each scope (default: all)")
    parser.add_argument(
        "--rows", type=int, default=64, help="rows per scope in the localization, and of generation (0: all)"
    )
    parser.add_argument("--steps", type=int, default=8, help="different unlearning steps")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side")
    parser.add_argument("--only", choices=list(PRETRAINED_GOALS), help="one comparison (default: all four)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory comparison out")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "speed.json"))
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)  # what the memory comparison starts itself with
    return parser.parse_args(arguments)


def main() -> None:
    """Run all comparisons, or one memory measurement of a child process."""
    arguments = parse()
    keep_freed_memory()  # as the command does; both sides have it
    setup = prepare(arguments.data, arguments.model, arguments.seed, arguments.threads, arguments.instances)
    if arguments.memory_of:
        what, side, batch = arguments.memory_of
        print(json.dumps(memory_of_one(setup, what, side, int(batch))))
        return
    compare: dict[str, Callable[[], dict[str, Any]]] = {
        "localization": lambda: localization(setup, arguments.rows, arguments.rounds),
        "unlearning step": lambda: unlearning_step(setup, arguments.steps, arguments.rounds),
        "scoring": lambda: scoring(setup, arguments.rounds),
        "generation": lambda: generation(setup, arguments.rows, arguments.rounds),
    }
    results = {name: one() for name, one in compare.items() if arguments.only is None or name == arguments.only}
    if not arguments.no_memory:
        for what in GOALS.keys() & results.keys():
            results[what]["memory"] = memory(what, arguments)
    goals = GOALS if arguments.model is None else PRETRAINED_GOALS
    for name, goal in goals.items():
        if name not in results:
            continue
        results[name]["goal"] = goal
        results[name]["reached"] = results[name]["ratio"] >= goal
    document = {
        "manifest": manifest(None, setup.benchmark.content_hash()),
        "seed": arguments.seed,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "dtype": "float32",
        "parameters": sum(p.numel() for p in setup.model.parameters()),
        "vocabulary": setup.vocab_size,
        "trained_model": arguments.model is not None,
        "results": results,
    }
    write_json(arguments.out, document)
    print(table(results, goals))


if __name__ == "__main__":
    main()
