"""Time of TOFU's default suite by OpenUnlearning's own code and by scopewise, on the same model and rows.

    python benchmarks/evaluation.py MODEL CHECKOUT --tofu FOLDER [--rounds N] [--rows N] [--out FILE]

MODEL is a folder with a causal language model, CHECKOUT an unchanged clone of locuslab/open-unlearning at d3d7cf9 whose own
configuration (`configs/eval/tofu.yaml`) and `Evaluator` are run; needs hydra-core and omegaconf. FOLDER holds TOFU's JSON lines
as the hub has them. TOFU's holdout authors are not among the files of every download: where they are not, other retain rows
stand for them, on both sides. Both sides must give the same values, or the script stops. In turns, in one process, float32,
CPU.

A suite is what is timed. From it follows a whole recipe: theirs runs the suite twelve times in its default run of ten epochs,
ours at the start and at the end, with ten evaluations of early stopping between, which are timed, too.

Memory: each side by itself in a process of its own, on a part of the rows, at its own batch sizes; the peak resident set
above what was resident before. The allocator returns freed blocks at once, so that this is memory in use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from memory import alone, peak_of
from open_unlearning_run import local
from scopewise.config import DataSection, EarlyStoppingSection, EvaluateSection
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import FORGET, RETAIN
from scopewise.evaluation import evaluate
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.record import manifest

COMMIT = "d3d7cf9e6b3c125d16687d4232680d8d83548f1a"
TAGS = ("Question: ", "\n", "Answer:\n")
"""Before the question, after it, and before the answer: no token of the prompt goes across into the answer."""
PROMPT = f"{TAGS[0]}{{question}}{TAGS[1]}{TAGS[2]}"
TEMPLATE = {
    "apply_chat_template": False,
    **dict(zip(("user_start_tag", "user_end_tag", "asst_start_tag"), TAGS, strict=True)),
    "asst_end_tag": "",
}
"""The same for OpenUnlearning."""
RETAINED = {"forget10": "retain90", "forget01": "retain99"}
FILES = ("retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
"""Of the suite, besides the forget rows."""
SUITE = {
    "forget_truth_ratio": "truth_ratio_forget/val",
    "forget_Q_A_Prob": "probability/forget_val",
    "forget_Q_A_ROUGE": "rouge_l_recall/forget_val",
    "model_utility": "model_utility/val",
    "privleak": "privleak/val",
    "extraction_strength": "extraction_strength/forget_val",
}
"""Their default suite and the same measures of ours. Forget quality needs a reference model's log, on both sides."""
METRICS = (
    "probability",
    "probability_paraphrase",
    "probability_normalised",
    "rouge_l_recall",
    "truth_ratio_forget",
    "truth_ratio_retain",
    "extraction_strength",
    "mia_min_k",
    "privleak",
    "model_utility",
)
LARGEST_DIFFERENCE = 1e-3
THEIR_SUITES = 12
OUR_SUITES = 2
PROBES = 10
MEMORY_ROWS = 128
"""Of each file: four of their batches."""


def read(folder: Path, name: str) -> list[str]:
    """Return the lines of a file."""
    return (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def prepare(source: Path, folder: Path, rows: int, forget: str, retained: int | None) -> None:
    """Write the files of the suite into a folder, each cut to `rows` (0: whole), and `retained` train rows (None: all)."""
    train, holdout = RETAINED[forget], forget.replace("forget", "holdout")
    for name in (forget, f"{forget}_perturbed", *FILES, train, holdout):
        if (source / f"{name}.jsonl").exists():
            lines = read(source, name)
        else:
            asked = {json.loads(line)["question"] for line in read(source, "retain_perturbed")}
            lines = [line for line in read(source, train) if json.loads(line)["question"] not in asked][:400]
        lines = lines[: rows or None] if name != train else lines[:retained]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_checkout(checkout: Path) -> None:
    """Stop if it is not the commit that is compared with."""
    found = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    if found.strip() != COMMIT:
        raise SystemExit(f"{checkout}: is at {found.strip()}; a checkout of {COMMIT} is needed")


def theirs(checkout: Path, data: Path, folder: Path, model: Any, tokenizer: Any) -> Callable[[], dict[str, float]]:
    """Return a run of their evaluator, with everything loaded but the data, which each of their metrics loads."""
    check_checkout(checkout)
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout / "src"))
    package = ModuleType("evals")  # its own __init__ imports what the harness has renamed since
    package.__path__ = [str(checkout / "src" / "evals")]
    sys.modules["evals"] = package
    from evals.tofu import TOFUEvaluator

    with initialize_config_dir(str(checkout / "configs"), version_base=None):
        given = ["~hydra", "task_name=speed", f"paths.output_dir={folder}", "eval.tofu.overwrite=true"]
        config = compose("eval.yaml", given)
    suite = OmegaConf.to_container(config.eval.tofu, resolve=True)
    local(suite, data)
    evaluator = TOFUEvaluator(OmegaConf.create(suite))

    def run() -> dict[str, float]:
        return evaluator.evaluate(model, tokenizer=tokenizer, template_args=TEMPLATE)

    return run


def ours(data: Path, model: Any, tokenizer: Any, costs: list[Any]) -> Callable[[], dict[str, float]]:
    """Return a run of our evaluation, data included; what its scoring cost goes into `costs`."""

    def run() -> dict[str, float]:
        benchmark = load_benchmark("tofu", str(data), "forget10")
        settings = EvaluateSection(
            metrics=METRICS,
            splits=("val",),
            generate_splits=("val",),
            direct_splits=(),
            max_new_tokens=200,
            eos=True,
        )
        prompt = DataSection(benchmark="tofu", prompt=PROMPT, max_length=512)
        found = evaluate(Engine(model, tokenizer, prompt), benchmark, settings)
        costs.append(found.cost)
        return found.metrics  # type: ignore[return-value]

    return run


def probe(data: Path, model: Any, tokenizer: Any) -> float:
    """Return the seconds of one evaluation of early stopping: the hits of a few train rows of each scope."""
    benchmark = load_benchmark("tofu", str(data), "forget10")
    rows = [r for scope in (FORGET, RETAIN) for r in benchmark.select(scope, "val")[: EarlyStoppingSection().rows]]
    items = encode(rows, tokenizer, Prompt(PROMPT))
    engine = Engine(model, tokenizer)
    engine.hit_rate(items)
    begun = time.perf_counter()
    engine.hit_rate(items)
    return time.perf_counter() - begun


def memory(arguments: argparse.Namespace) -> dict[str, int]:
    """Return the bytes that each side adds at its peak, measured in a process of its own."""
    shared = [str(arguments.model), str(arguments.checkout), "--tofu", str(arguments.tofu)]
    shared += ["--threads", str(arguments.threads), "--rows", str(MEMORY_ROWS), "--memory-of"]
    measured = {side: alone(__file__, [*shared, side]) for side in ("open_unlearning", "scopewise")}
    return {side: found["peak"] - found["before"] for side, found in measured.items()}


def agree(their: Mapping[str, float], our: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return both sides' values of the suite; stop where they differ."""
    values = {name: (float(their[name]), float(our[key])) for name, key in SUITE.items()}
    off = {name: pair for name, pair in values.items() if abs(pair[0] - pair[1]) > LARGEST_DIFFERENCE}
    if off:
        raise SystemExit(f"values disagree: {off}")
    return values


def main() -> None:
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--tofu", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=0, help="of each file (0: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", choices=["open_unlearning", "scopewise"], help=argparse.SUPPRESS)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "evaluation.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        prepare(arguments.tofu, data, arguments.rows, "forget10", 1)  # none of the train rows is measured
        costs: list[Any] = []
        sides = {
            "open_unlearning": theirs(arguments.checkout.resolve(), data, data / "theirs", model, tokenizer),
            "scopewise": ours(data, model, tokenizer, costs),
        }
        if arguments.memory_of:
            run = sides[arguments.memory_of]
            run()  # what the libraries allocate once is not counted
            print(json.dumps(peak_of(run)))
            return
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        values: dict[str, dict[str, float]] = {}
        for _ in range(arguments.rounds):
            for name, run in sides.items():
                wall, processor = time.perf_counter(), time.process_time()
                values[name] = run()
                seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
                print(f"{name}: {seconds[name][-1][0]:.1f} s", file=sys.stderr)
        probed = probe(data, model, tokenizer)
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in seconds.items()
    }
    ratios = [a / b for a, b in zip(medians["open_unlearning"], medians["scopewise"], strict=True)]
    recipe = THEIR_SUITES * medians["open_unlearning"][0] / (OUR_SUITES * medians["scopewise"][0] + PROBES * probed)
    peaks = memory(arguments)
    compared = agree(values["open_unlearning"], values["scopewise"])
    document = {
        "manifest": manifest(None, None),
        "open_unlearning": COMMIT,
        "threads": arguments.threads,
        "rows": arguments.rows,
        "parameters": model.num_parameters(),
        "seconds": seconds,
        "ratio": ratios[0],
        "processor_ratio": ratios[1],
        "probe_seconds": probed,
        "recipe_ratio": recipe,
        "scoring": costs[-1],
        "memory": {"rows": MEMORY_ROWS, "peak_bytes": peaks},
        "values": compared,
    }
    write_json(arguments.out, document)
    print("| | OpenUnlearning | scopewise | ratio | of processor time |\n|---|---:|---:|---:|---:|")
    times = [f"{medians[name][0]:.1f} s" for name in sides]
    print(f"| one default suite | {times[0]} | {times[1]} | {ratios[0]:.2f}x | {ratios[1]:.2f}x |")
    print(f"| a recipe: {THEIR_SUITES} suites, or {OUR_SUITES} and {PROBES} probes | | | {recipe:.1f}x | |\n")
    added = " and ".join(f"{peak / 2**20:.0f} MiB by {side}" for side, peak in peaks.items())
    print(f"peak memory on {MEMORY_ROWS} rows of each file: {added}\n")
    print(f"scoring: {100 * costs[-1]['flops_utilisation']:.0f} % of the matrix rate\n")
    print(json.dumps(compared))


if __name__ == "__main__":
    main()
