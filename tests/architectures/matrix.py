"""Every architecture x LoRA and all parameters: what scopewise computes, against the library's plain forward.

python tests/architectures/matrix.py                                      # all types, a line each
python tests/architectures/matrix.py gemma2 mamba                         # some
python tests/architectures/matrix.py --output benchmarks/results/architectures.json
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from architectures import plain
from architectures.models import CONFIGS, build, spread
from scopewise import UnlearningConfig, UnlearningTrainer, evaluate
from scopewise.attacks.base import attacked_engine, score_answers
from scopewise.config import LoraSection
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, Benchmark, Row
from scopewise.errors import UserError
from scopewise.localizers import LOCALIZERS
from scopewise.localizers.base import Scopes, localize_encoded
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.engine import Engine
from scopewise.models.generate import end_ids
from scopewise.models.matrices import matrices
from scopewise.models.tiny import build_tokenizer, tokenizer_texts

PERPLEXITY, COSINE = 1e-5, 0.9999
"""Largest relative difference, least cosine: the goals."""

PARAMETERS = ("lora", "all")
NEW_TOKENS = 6


class WrongError(Exception):
    """A number is not what the library's plain forward gives."""


@dataclass(frozen=True)
class Data:
    """Rows with wrong answers that share their prompt, longer than any window here, and their tokenizer."""

    tokenizer: Any
    forget: list[Row]
    retain: list[Row]

    def encoded(self, scope: str) -> list[Encoded]:
        """Return the rows of a scope, tokenised."""
        return encode(self.forget if scope == FORGET else self.retain, self.tokenizer)


def data() -> Data:
    """Return three short rows of each scope of the built-in benchmark, each with two wrong answers and a paraphrase."""
    rows = load_benchmark("builtin").rows
    tokenizer = build_tokenizer(tokenizer_texts(rows), 300)
    scopes: dict[str, list[Row]] = {}
    for scope in (FORGET, RETAIN):
        every = (r for r in rows if r.scope == scope and r.split == TRAIN)
        some = sorted(every, key=lambda r: len(r.question + r.answer))
        answers = [r.answer for r in some]
        scopes[scope] = [
            replace(r, perturbed=(answers[i + 3], answers[i + 4]), paraphrase=answers[i + 5])
            for i, r in enumerate(some[:3])
        ]
    return Data(tokenizer, scopes[FORGET], scopes[RETAIN])


def prepared(model: Any, parameters: str, dropout: float) -> Any:
    """Return the model as unlearning takes it: with the default adapter, which does something, or by itself."""
    if parameters == "all":
        return model
    adapted = with_adapter(model, lora_config(LoraSection(lora_dropout=dropout)), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return adapted.eval()


# -- what is compared -------------------------------------------------------------------------------------------------


def check_evaluate(model: Any, given: Data) -> str:
    """Perplexity of both scopes, success, and the truth ratio of answers that share a prompt."""
    metrics = ("perplexity", "unlearn_success", "truth_ratio")
    rows = Benchmark("rows", (*given.forget, *given.retain))
    found = evaluate(
        model, given.tokenizer, rows, metrics=metrics, splits=("train",), direct_splits=(), generate_splits=()
    ).metrics
    worst = 0.0
    for scope in (FORGET, RETAIN):
        want = plain.perplexity(model, given.encoded(scope))
        off = abs(found[f"perplexity/{scope}_train"] / want - 1)
        # A row near the edge of a router's choice is worse conditioned than the goal: then rounding decides.
        if off > PERPLEXITY and off > 3 * plain.rounding(model, given.encoded(scope)):
            raise WrongError(f"perplexity is off by {off:.1e}")
        worst = max(worst, off)
    success = 100 - 100 * sum(plain.hits(model, item) for item in given.encoded(FORGET)) / len(given.forget)
    if abs(found["unlearn_success/train"] - success) > 1e-3:
        raise WrongError(f"unlearn_success is {found['unlearn_success/train']:.3f}, plainly {success:.3f}")
    ratios = []
    for row in given.forget:
        others = [replace(row, answer=text) for text in (row.paraphrase, *row.perturbed)]
        right, *wrong = (plain.probability(model, item) for item in encode(others, given.tokenizer))
        ratios.append(plain.truth_ratio(right, wrong))
    ratio = sum(ratios) / len(ratios)
    if abs(found["truth_ratio/forget_train"] - ratio) > 1e-5:
        raise WrongError(f"truth_ratio is {found['truth_ratio/forget_train']:.6f}, plainly {ratio:.6f}")
    return f"{worst:.0e}"


def check_grown(model: Any, given: Data) -> str:
    """The same of a model that was measured with its first weights, and then became another in place."""
    with contextlib.suppress(WrongError):  # of fresh weights nothing is asked but that they are looked at
        check_evaluate(model, given)
    spread(model)
    return check_evaluate(model, given)


def check_gradients(model: Any, given: Data) -> str:
    """Mean gradients, and mean squares of each row's, of every matrix a region may choose from."""
    items, wanted = given.encoded(FORGET), matrices(model)
    rows = plain.gradients(model, items, wanted)
    engine = Engine(model, given.tokenizer)
    pairs = {
        "gradient": (engine.mean_gradients(items, "rows"), plain.mean_of(rows)),
        "squared gradient": (
            engine.mean_squared_gradients(items, "rows"),
            plain.mean_of(rows, lambda g: g.square()),
        ),
    }
    least = 1.0
    for what, (ours, theirs) in pairs.items():
        cosine = plain.cosine(ours, theirs)
        sizes = [sum(float(x.abs().sum()) for x in both.values()) for both in (ours, theirs)]
        size = sizes[0] / max(1e-30, sizes[1])
        if cosine < COSINE or abs(size - 1) > 1e-3:
            raise WrongError(f"{what}: cosine {cosine:.5f}, size {size:.4f}")
        least = min(least, cosine)
    return f"{1 - least:.0e}"


def check_localizers(model: Any, given: Data) -> str:
    """Every localizer gives a region, or is refused by name, and leaves the model as it was, bit for bit."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine, scopes = Engine(model, given.tokenizer), Scopes(given.encoded(FORGET), given.encoded(RETAIN))
    shares, refused = [], []
    for name in LOCALIZERS:
        try:
            region = localize_encoded(name, engine, scopes, {"repeats": 2})
        except UserError as error:
            refused.append(f"{name} refused: {error}")
            continue
        if not 0 < region.fraction <= 1:
            raise WrongError(f"{name}: a region of {region.fraction}")
        shares.append(region.fraction)
    for name, value in model.state_dict().items():
        if not torch.equal(value, before[name]):
            raise WrongError(f"a localizer changed {name}")
    return "; ".join([f"{min(shares):.2f} to {max(shares):.2f}", *refused])


def check_step(model: Any, given: Data) -> str:
    """One step of plain SGD on -CE(forget) + CE(retain) goes where autograd says, for every parameter that moves."""
    before = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(model, given, "ga_descent", folder, region="all", learning_rate=1e-3)
        moved = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
    wanted = {name: p for name, p in before.named_parameters() if name in moved}
    descent = plain.mean_of(plain.gradients(before, given.encoded(RETAIN), wanted))
    ascent = plain.mean_of(plain.gradients(before, given.encoded(FORGET), wanted))
    step = {
        name: p.detach().double() - wanted[name].detach().double()
        for name, p in trainer.model.named_parameters()
        if name in moved
    }
    cosine = plain.cosine(step, {name: ascent[name] - descent[name] for name in wanted})
    if cosine < COSINE:
        raise WrongError(f"the step's cosine with the plain gradient is {cosine:.5f}")
    return f"{1 - cosine:.0e}"


def check_unlearn(model: Any, given: Data) -> str:
    """MemFlex as it comes: it localizes, takes two steps, and what comes out is measured rightly."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        _trainer(model, given, "memflex", folder, learning_rate=1e-2, max_steps=2).train()
    changed = sum(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if not changed:
        raise WrongError("memflex changed nothing")
    return check_evaluate(model.eval(), given)


def check_attack(model: Any, given: Data) -> str:
    """The attack `question`: the probability of every answer."""
    subject = attacked_engine("model", copy.deepcopy(model), given.tokenizer)
    asked, _ = score_answers(subject, given.forget, "ask")
    plainly = [plain.probability(model, item) for item in given.encoded(FORGET)]
    worst = max(abs(a / b - 1) for a, b in zip(asked, plainly, strict=True) if a is not None)
    if None in asked or worst > 1e-4:
        raise WrongError(f"a probability is off by {worst:.1e}")
    return f"{worst:.0e}"


def check_generate(model: Any, given: Data) -> str:
    """Greedy texts of prompts of several lengths in one batch, token for token."""
    prompts = [item.prompt_ids for item in (*given.encoded(FORGET), *given.encoded(RETAIN))]
    texts = Engine(model, given.tokenizer).generate(prompts, NEW_TOKENS)
    ends = end_ids(model, given.tokenizer)
    for prompt, (text,) in zip(prompts, texts, strict=True):
        want = given.tokenizer.decode(plain.continued(model, prompt, NEW_TOKENS, ends), skip_special_tokens=True)
        if text != want.strip():
            raise WrongError(f"generates {text!r}, plainly {want.strip()!r}")
    return f"{len(prompts)} texts"


CHECKS: dict[str, Callable[[Any, Data], str]] = {
    "evaluate": check_evaluate,
    "grown": check_grown,
    "generate": check_generate,
    "gradients": check_gradients,
    "localizers": check_localizers,
    "step": check_step,
    "unlearn": check_unlearn,
    "attack": check_attack,
}


def _trainer(model: Any, given: Data, method: str, folder: str, **settings: Any) -> UnlearningTrainer:
    region = settings.pop("region", None)
    arguments = {
        "output_dir": folder, "use_cpu": True, "optim": "sgd", "lr_scheduler_type": "constant", "warmup_steps": 0.0,
        "max_grad_norm": 0.0, "max_steps": 1, "per_device_train_batch_size": 6, "disable_tqdm": True,
        "logging_strategy": "no", **settings,
    }  # fmt: skip
    trainer = UnlearningTrainer(
        model=model, method=method, args=UnlearningConfig(**arguments), forget_dataset=given.forget,
        retain_dataset=given.retain, processing_class=given.tokenizer, region=region,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def examined(kind: str, parameters: str, given: Data, checks: tuple[str, ...] = tuple(CHECKS)) -> dict[str, str]:
    """Return what each check found of a type: `ok (how near)`, `refused: sentence`, `WRONG: …` or `CRASH: …`."""
    found = {}
    for name in checks:
        try:
            model = build(kind, len(given.tokenizer))
            if name != "grown":
                spread(model)
            # A step is compared with a gradient, which dropout would make another.
            model = prepared(model, parameters, dropout=0.0 if name == "step" else 0.1)
            found[name] = f"ok ({CHECKS[name](model, given)})"
        except UserError as error:
            found[name] = f"refused: {error}"
        except WrongError as error:
            found[name] = f"WRONG: {error}"
        except Exception as error:
            found[name] = f"CRASH: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found


def main() -> int:
    """Examine, print a line for each, and return how many are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", default=list(CONFIGS))
    parser.add_argument("--checks", nargs="*", default=list(CHECKS))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, start, bad = data(), time.perf_counter(), 0
    found: dict[str, Any] = {}
    for kind in given.types:
        for parameters in PARAMETERS:
            cells = examined(kind, parameters, rows, tuple(given.checks))
            found.setdefault(kind, {})[parameters] = cells
            wrong = {name: text for name, text in cells.items() if not text.startswith(("ok", "refused"))}
            bad += len(wrong)
            refused = {name: text for name, text in cells.items() if text.startswith("refused")}
            right = sum(text.startswith("ok") for text in cells.values())
            print(f"{kind:16} {parameters:5} ok {right}/{len(cells)}", flush=True)
            for name, text in (wrong | refused).items():
                print(f"    {name:12} {text[:220]}", flush=True)
    print(f"{len(found)} types, {bad} wrong, {time.perf_counter() - start:.0f} s")
    if given.output:
        from scopewise.files import write_json
        from scopewise.record import manifest

        write_json(given.output, {"origin": manifest(None, None), "types": found})
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
