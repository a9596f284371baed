"""Run the authors' functions on the tiny model and write what they return.

    python tests/parity/record_knowundo.py CHECKOUT

CHECKOUT is an unchanged clone of zjunlp/KnowUnDo at 92aea2b. Needs scikit-learn, which their localization imports.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from checkout import function, gradients, load, origin, tree, verified, write
from tiny import (
    FORGET,
    MEASURED,
    REPEATS,
    RETAIN,
    TEXTS,
    Pair,
    build_model,
    build_tokenizer,
    digest,
    padded,
    random_labels,
    set_adapter,
)
from torch import Tensor, nn

COMMIT = "92aea2b83765a89e52600393c1bfc7f28c4db494"
OUTPUT = Path(__file__).with_name("knowundo_92aea2b.json")


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    checkout = verified(parser.parse_args().checkout, COMMIT)
    torch.set_num_threads(1)
    recorded = {
        **origin(__file__, COMMIT),
        "ascent": record_ascent(checkout),
        "descent": record_descent(checkout),
        "kl": record_kl(checkout),
        "localization": record_localization(checkout),
        "success": record_success(checkout),
        "answer_span": record_answer_span(checkout),
    }
    write(OUTPUT, recorded)


def record_ascent(checkout: Path) -> dict[str, Any]:
    """`GradientAscentTrainer.training_step`: alone (their batch of one per process), and a padded batch of all rows.

    What it inherits is what `Trainer.compute_loss` was in the version they pin: the model's own loss.
    """
    trainer = load(checkout, "llm_unlearn/methods/gradient_ascent.py").GradientAscentTrainer

    def step(pairs: tuple[Pair, ...]) -> dict[str, Any]:
        model = build_model()
        stub = SimpleNamespace(
            args=SimpleNamespace(n_gpu=1, gradient_accumulation_steps=1),
            use_apex=False,
            accelerator=SimpleNamespace(backward=lambda loss: loss.backward()),
            compute_loss_context_manager=contextlib.nullcontext,
            compute_loss=lambda model, inputs: model(**inputs).loss,
            _prepare_inputs=lambda inputs: inputs,
        )
        loss = trainer.training_step(stub, model, padded(pairs))
        return {"loss": loss.item(), "gradients": digest(gradients(model))}

    return {"alone": [step((pair,)) for pair in FORGET], "batch": step(FORGET)}


def record_descent(checkout: Path) -> dict[str, Any]:
    """`AscentPlusDescentTrainer.compute_loss` with as many rows of both scopes, with more of one, and as MemFlex."""
    trainer = load(checkout, "llm_unlearn/methods/ascent_plus_descent.py").AscentPlusDescentTrainer

    def step(forget: tuple[Pair, ...], retain: tuple[Pair, ...], method: str) -> dict[str, Any]:
        model = build_model()
        stub = SimpleNamespace(args=SimpleNamespace(unlearn_method=method))
        factor = torch.tensor([-1.0] * len(forget) + [1.0] * len(retain))
        loss = trainer.compute_loss(stub, model, {**padded(forget + retain), "factor": factor})
        loss.backward()
        return {"loss": loss.item(), "gradients": digest(gradients(model))}

    return {
        "balanced": step(FORGET, RETAIN, "ascent_plus_descent"),
        "unbalanced": step(FORGET, RETAIN[:1], "ascent_plus_descent"),
        "memflex": step(FORGET, RETAIN, "memflex"),
    }


def record_kl(checkout: Path) -> dict[str, Any]:
    """`compute_kl` and `AscentPlusKLDivergenceTrainer.compute_loss`: the reference has another adapter (phase 0 and 1).

    `unpadded`: a retain row without its last token, so that the positions they average over are those that predict a
    token. `entropy` is their function with the reference on both sides: the entropy of the reference.
    """
    module = load(checkout, "llm_unlearn/methods/ascent_plus_KLdivergence.py")
    reference, device = build_model(0.0), torch.device("cpu")
    unpadded = []
    for prompt, answer in RETAIN:
        model, inputs = build_model(1.0), padded(((prompt, answer[:-1]),))
        loss = module.compute_kl(reference, model, inputs, device)
        loss.backward()
        unpadded.append(
            {
                "loss": loss.item(),
                "entropy": float(module.compute_kl(reference, reference, inputs, device).detach()),
                "gradients": digest(gradients(model)),
            }
        )
    with torch.no_grad():
        batch = module.compute_kl(reference, build_model(1.0), padded(RETAIN), device)
    model = build_model(1.0)
    prompt, answer = RETAIN[1]
    both = padded((FORGET[0], (prompt, answer[:-1])))  # of equal length: 7 and 8 - 1
    assert bool(both["attention_mask"].all())
    stub = SimpleNamespace(pretrain_model=reference, accelerator=SimpleNamespace(device=device))
    inputs = {**both, "factor": torch.tensor([-1.0, 1.0])}
    whole = module.AscentPlusKLDivergenceTrainer.compute_loss(stub, model, inputs)
    whole.backward()
    return {
        "unpadded": unpadded,
        "padded": {"loss": float(batch)},
        "ascent_plus_kl": {"loss": whole.item(), "gradients": digest(gradients(model))},
    }


def record_localization(checkout: Path) -> dict[str, Any]:
    """`compute_info`, `compute_cosine_similarity` and the rule of `main()`.

    `inputs`: on rows that *their* data module has corrupted. `labels`: on clean inputs with labels given by a formula,
    every repeat a row of its own. `fresh`: as `labels`, with B = 0.
    """
    sys.path.insert(0, str(checkout / "pretrain"))
    module = load(checkout, "pretrain/localization.py")
    data = sys.modules["data_module"]
    with contextlib.chdir(checkout / "pretrain"):
        tags = data.get_model_identifiers_from_yaml("llama2-7b")
    rule = located_region(checkout, module)
    tokenizer = build_tokenizer()

    def info(model: nn.Module, rows: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
        loader = torch.utils.data.DataLoader(rows, batch_size=1, collate_fn=data.custom_data_collator)
        return module.compute_info(model, loader, device="cpu")

    random.seed(42)
    corrupted = {
        scope: [
            [data.convert_to_model_format_with_random_label(tokenizer, 16, *text, tags) for _ in range(REPEATS)]
            for text in texts
        ]
        for scope, texts in TEXTS.items()
    }
    model = build_model()
    found = {scope: info(model, [row for copies in rows for row in copies]) for scope, rows in corrupted.items()}
    as_lists = {
        scope: [[{"input_ids": i.tolist(), "labels": lab.tolist()} for i, lab, _ in copies] for copies in rows]
        for scope, rows in corrupted.items()
    }
    inputs = {
        "rows": as_lists,
        "gradients": {
            scope: {name: gradient.flatten().tolist() for name, gradient in found[scope].items()} for scope in found
        },
        **rule(found["forget"], found["retain"], (0.25, 0.5, 0.75)),
    }
    relabelled = {
        scope: [
            (row["input_ids"][0], torch.tensor([*[-100] * len(pair[0]), *labels]), row["attention_mask"][0])
            for pair in pairs
            for row in [padded((pair,))]
            for labels in [random_labels(pair, repeat) for repeat in range(REPEATS)]
        ]
        for scope, pairs in (("forget", FORGET), ("retain", RETAIN))
    }
    results = {}
    for name, b_scale in (("labels", 0.1), ("fresh", 0.0)):
        model = build_model()
        set_adapter(model, 0.0, b_scale)
        found = {scope: info(model, rows) for scope, rows in relabelled.items()}
        results[name] = {
            "gradients": {scope: digest(found[scope]) for scope in found},
            **rule(found["forget"], found["retain"], (0.75,)),
        }
    return {"inputs": inputs, **results}


def located_region(checkout: Path, module: ModuleType) -> Any:
    """Return their rule: the statements of `main()` from `delta_matrix = {}` to the list of chosen names."""
    source = tree(checkout, "pretrain/localization.py")
    body = function(source, "main").body
    first = next(i for i, node in enumerate(body) if ast.unparse(node) == "delta_matrix = {}")
    last = next(i for i, node in enumerate(body) if i > first and isinstance(node, ast.With))
    code = compile(ast.Module(body[first:last], []), "localization.main", "exec")

    def run(unlearn: Mapping[str, Tensor], retention: Mapping[str, Tensor], mu: float, sigma: float) -> dict[str, Any]:
        namespace = {
            "np": np,
            "compute_cosine_similarity": module.compute_cosine_similarity,
            "grad_unlearn": unlearn,
            "grad_retention": retention,
            "data_args": SimpleNamespace(sim_thresh=mu, grad_thresh=sigma),
        }
        exec(code, namespace)
        return namespace

    def rule(
        unlearn: Mapping[str, Tensor], retention: Mapping[str, Tensor], fractions: Iterable[float]
    ) -> dict[str, Any]:
        """At thresholds half-way between two observed values, so that rounding decides nothing."""
        observed = run(unlearn, retention, 2.0, -1.0)
        cosines = [float(c) for c in observed["item_list"]]
        magnitudes = [float(m) for m in observed["unlearn_list"]]
        chosen = []
        for fraction in fractions:
            mu, sigma = between(cosines, fraction), between(magnitudes, 1 - fraction)
            names = run(unlearn, retention, mu, sigma)["located_region"]
            assert 0 < len(names) < len(cosines), (fraction, names)
            chosen.append({"mu": mu, "sigma": sigma, "names": names})
        return {
            "cosine": dict(zip(unlearn, cosines, strict=True)),
            "magnitude": dict(zip(unlearn, magnitudes, strict=True)),
            "magnitude_retain": dict(zip(unlearn, map(float, observed["retention_list"]), strict=True)),
            "chosen": chosen,
        }

    return rule


def record_success(checkout: Path) -> dict[str, Any]:
    """`preprocess_logits_for_metrics` and `compute_metrics` of the evaluation, on one padded batch per scope."""
    source = tree(checkout, "llm_unlearn/run_eval_lora.py")
    names = ("preprocess_logits_for_metrics", "compute_min_k_ppl_acc", "compute_metrics")
    nodes = [function(source, name) for name in names]
    namespace: dict[str, Any] = {"torch": torch, "np": np, "tokenizer": build_tokenizer()}
    exec(compile(ast.Module(nodes, []), "run_eval_lora.main", "exec"), namespace)  # type: ignore[arg-type]
    model, measured = build_model(), {}
    for scope, pairs in MEASURED.items():
        inputs = padded(pairs)
        with torch.no_grad():
            logits = model(**inputs).logits
        predictions = namespace["preprocess_logits_for_metrics"](logits, inputs["labels"])
        measured[scope] = namespace["compute_metrics"]((predictions.numpy(), inputs["labels"].numpy()))
    return measured


def record_answer_span(checkout: Path) -> list[list[int]]:
    """Return the token ids that `tokenize` leaves in the labels of each text, forget rows first."""
    node = function(tree(checkout, "llm_unlearn/utils/llm_tokenize_with_chunk.py"), "tokenize")
    namespace: dict[str, Any] = {"torch": torch, "np": np, "copy": copy, "BatchEncoding": transformers.BatchEncoding}
    exec(compile(ast.Module([node], []), "llm_tokenize_with_chunk", "exec"), namespace)
    texts = [text for scope in TEXTS.values() for text in scope]
    # As `save_tokenized_dataset.py` and `ascent_plus_descent_tokenizer.py` build their rows.
    rows = {"text": ["\n\n".join(text) for text in texts], "labels": ["\n\n" + answer for _, answer in texts]}
    dataset = SimpleNamespace(map=lambda function, **_: function(rows))
    labels = namespace["tokenize"](dataset, build_tokenizer(), 16)["labels"]
    return [row[row != -100].tolist() for row in labels]


def between(values: list[float], fraction: float) -> float:
    """Return the mid-point of the two observed values around a quantile."""
    ordered = sorted(values)
    k = max(1, min(len(ordered) - 1, round(fraction * len(ordered))))
    return (ordered[k - 1] + ordered[k]) / 2


if __name__ == "__main__":
    main()
