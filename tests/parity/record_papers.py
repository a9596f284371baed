"""Run the functions of several papers' own repositories on the tiny model and write what they return.

    python tests/parity/record_papers.py FOLDER

FOLDER holds unchanged clones named as in `COMMITS`; only the files that are run have to be there and unchanged. Needs
scikit-learn, which GRAIL's localization imports, and tqdm.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import tqdm
from checkout import executed, git, gradients, instance, load, origin, stand_in, tree, verified, write
from tiny import (
    ALTERNATIVE,
    FORGET,
    REPEATS,
    RETAIN,
    Pair,
    build_base,
    build_model,
    digest,
    padded,
    random_labels,
    whole,
)
from torch import Tensor

COMMITS = {
    "Alternate-Preference-Optimization": "c9b78bd8bc10ae1d0bb6a117b19f92b3ebf5ff67",
    "GRAIL": "5cd74dd5280f7e2a29711177b38472ee0da1ca65",
    "unlearn": "0800fd24f071a47958295fb1804906365567695c",
    "WAGLE": "31275e87c03e0f23bb01413eb3f19eada4a404d0",
    "muse_bench": "54719c51f07221dcfbfbe8ae76bb091df77433b2",
    "blade": "a8c7b7dd9a7a1fffd75bc4f2651a827c139e4c2c",
}
BLADE_FILE = "src/trainer/unlearn/lora_bial_losses.py"
BLADE_BLOB = "ee84b915f1fd9855d79c634f50db5e7979d2fef2"
OUTPUT = Path(__file__).with_name("papers.json")


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    recorded = {
        **origin(__file__, COMMITS),
        "alt_po": record_alt_po(checkout(folder, "Alternate-Preference-Optimization", "dataloader.py", "utils.py")),
        "relearn": record_relearn(checkout(folder, "unlearn", "baselines/src")),
        "grail": record_grail(checkout(folder, "GRAIL", "llm_localization", "llm_unlearn", "pretrain")),
        "weight_attribution": record_wagle(checkout(folder, "WAGLE", "src/unlearn/generate_mask.py")),
        "task_vector": record_task_vector(checkout(folder, "muse_bench", "baselines/baselines/task_vector.py")),
        "blade": record_blade(folder / "blade"),
    }
    write(OUTPUT, recorded)


def checkout(folder: Path, name: str, *paths: str) -> Path:
    """Return a clone whose `paths` are as they were at its commit."""
    return verified(folder / name, COMMITS[name], *paths)


def triple(pairs: tuple[Pair, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, labels and mask, in the order of the TOFU family of code."""
    batch = padded(pairs)
    return batch["input_ids"], batch["labels"], batch["attention_mask"]


def figures(loss: Tensor, model: torch.nn.Module) -> dict[str, Any]:
    """Return the loss and, after its backward, the gradients of the adapter."""
    loss.backward()
    return {"loss": loss.item(), "gradients": digest(gradients(model))}


def record_alt_po(checkout: Path) -> dict[str, Any]:
    """`CustomTrainerForgetting.compute_loss` with alternates: a batch without its retain term, and a pair with it."""
    stand_in("evaluate_util", get_dataloader=None, get_all_evals=None)
    batch_loss = executed(tree(checkout, "utils.py"), "get_batch_loss", torch=torch)["get_batch_loss"]
    others = dict.fromkeys(("get_forget_quality", "get_model_utility", "get_gibberish_evals", "column_order"))
    stand_in("utils", get_batch_loss=batch_loss, **others)
    cls = load(checkout, "dataloader.py").CustomTrainerForgetting

    def run(count: int, retain_weight: float) -> dict[str, Any]:
        model = build_model(1.0)
        trainer = instance(
            cls,
            args=SimpleNamespace(device="cpu"),
            loss_type="dpo",
            oracle_model=build_model(0.0),
            alpha=None,
            beta=0.1,
            retain_wt=retain_weight,
            retain_type="NLL",
        )
        inputs = [triple(pairs[:count]) for pairs in (ALTERNATIVE, FORGET, RETAIN)]
        return figures(trainer.compute_loss(model, inputs), model)

    return {"forget": run(3, 0.0), "pair": run(1, 2.0)}


def record_relearn(checkout: Path) -> dict[str, Any]:
    """`IterativeUnlearner.compute_loss` of the two types with a retain term: with CE, and with CE and KL."""
    stand_in("src")
    stand_in("deepspeed")
    batch_loss = executed(tree(checkout, "baselines/src/utils.py"), "get_batch_loss", torch=torch, nn=torch.nn)
    stand_in("src.utils", get_batch_loss=batch_loss["get_batch_loss"])
    cls = load(checkout, "baselines/src/iterative_trainer.py").IterativeUnlearner

    def run(loss_type: str) -> dict[str, Any]:
        model = build_model(1.0)
        trainer = instance(cls, loss_type=loss_type, ref_model=build_model(0.0), beta=0.1)
        return figures(trainer.compute_loss(model, (padded(ALTERNATIVE), padded(RETAIN))), model)

    return {"ce": run("relearn_gdr"), "ce_kl": run("relearn_klr_gdr")}


def record_grail(checkout: Path) -> dict[str, Any]:
    """Masks made by `main()` of their localization, and `training_step` with them, a row at a time.

    Both domains are given the same rows, so that unions and intersections over domains are those of one domain. The
    gradients are their `compute_info`'s on labels given by a formula.
    """
    sys.path.insert(0, str(checkout / "pretrain"))
    localization = load(checkout, "llm_localization/localization.py")
    collate = sys.modules["data_module"].custom_data_collator
    found = {}
    for scope, pairs in (("unlearn", FORGET), ("retention", RETAIN)):
        rows = []
        for pair in pairs:
            batch = padded((pair,))
            for repeat in range(REPEATS):
                labels = torch.tensor([*[-100] * len(pair[0]), *random_labels(pair, repeat)])
                rows.append((batch["input_ids"][0], labels, batch["attention_mask"][0]))
        loader = torch.utils.data.DataLoader(rows, batch_size=1, collate_fn=collate)  # type: ignore[arg-type]
        found[scope] = localization.compute_info(build_model(), loader, device="cpu")
    masks = grail_masks(checkout, found)
    cls = load(checkout, "llm_unlearn/methods/grail_ascent_plus_descent.py").GrailAscentPlusDescentTrainer

    def run(pair: Pair, factor: float) -> dict[str, Any]:
        model = build_model(1.0)
        trainer = instance(
            cls,
            args=SimpleNamespace(unlearn_method="grail"),
            UR_pt={name: torch.tensor(places, dtype=torch.long) for name, places in masks["overlap"].items()},
            RR_pt={name: torch.tensor(places, dtype=torch.long) for name, places in masks["core"].items()},
        )
        loss = trainer.training_step(model, {**padded((pair,)), "factor": torch.tensor([factor])})
        kept = {name: gradient.flatten().tolist() for name, gradient in gradients(model).items()}
        return {"loss": loss.item(), "gradients": kept}

    return {**masks, "forget": run(FORGET[0], -1.0), "retain": run(RETAIN[0], 1.0)}


def grail_masks(checkout: Path, found: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, list[int]]]:
    """Return what their `main()` makes of the gradients: frozen entries by matrix, at .1 and .2.

    The core at .2 is saved under the name of the other share, as the script has it.
    """
    module = load(checkout, "llm_localization/grail_parameter_wise_localization.py")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "m" / "zscore" / "b"
        for part in ("UR", "RR"):
            (made / part).mkdir(parents=True)
        for domain in ("privacy", "copyright"):
            for scope, values in found.items():
                torch.save(values, made / f"grad_info_{domain}_{scope}_3.pt")
        arguments = ["--UR", "0.1", "--RR", "0.2", "--vanilla_model", "m", "--base_model", "b", "--output_dir", folder]
        with mock.patch.object(sys, "argv", ["main", *arguments]):
            module.main()
        masks = {"overlap": torch.load(made / "UR" / "UR_top10.pt"), "core": torch.load(made / "RR" / "RR_top10.pt")}
    return {key: {name: places.tolist() for name, places in mask.items()} for key, mask in masks.items()}


def record_wagle(checkout: Path) -> dict[str, Any]:
    """`snip_advanced` on a model without adapter: scores of its linear layers but the head, negated as they are.

    Its file imports what the installed transformers no longer has, hence the two functions alone.
    """
    namespace = executed(
        tree(checkout, "src/unlearn/generate_mask.py"),
        "snip_advanced",
        "compute_loss_adapted",
        torch=torch,
        tqdm=tqdm,
        time=time.time,
    )

    def row(pair: Pair) -> tuple[Tensor, ...]:
        batch = padded((pair,))
        return batch["input_ids"], batch["attention_mask"], batch["labels"]

    mu, model = 0.03, build_base()
    trainer = SimpleNamespace(
        model=model,
        mu=mu,
        optimizer=None,
        args=SimpleNamespace(n_gpu=1),
        accelerator=SimpleNamespace(
            free_memory=lambda: None,
            prepare=lambda model, optimizer: (model, optimizer),
            backward=lambda loss: loss.backward(),
        ),
        get_train_dataloader=lambda: [
            {"forget": row(f), "retain": row(r)} for f, r in zip(FORGET, RETAIN, strict=True)
        ],
        _wrap_model=lambda model: model,
        _prepare_inputs=lambda inputs: inputs,
        compute_loss_context_manager=contextlib.nullcontext,
        compute_loss_adapted=lambda *args, **kwargs: namespace["compute_loss_adapted"](None, *args, **kwargs),
    )
    namespace["snip_advanced"](trainer)
    scores, start = {}, 0
    for name, parameter in model.named_parameters():
        scores[name] = trainer.scores[start : start + parameter.numel()].reshape(parameter.shape)
        start += parameter.numel()
    linear = {n: s for n, s in scores.items() if s.dim() == 2 and "embed" not in n and "lm_head" not in n}
    return {"mu": mu, "rows": len(FORGET), "scores": digest(linear)}


def record_task_vector(checkout: Path) -> dict[str, Any]:
    """`TaskVector`, negated and applied: of a whole model, and of one with an adapter that was trained further."""
    cls = load(checkout, "baselines/baselines/task_vector.py").TaskVector

    def run(before: torch.nn.Module, learnt: torch.nn.Module) -> dict[str, list[float]]:
        vector = cls(pretrained_state_dict=before.state_dict(), finetuned_state_dict=learnt.state_dict())
        return digest((-vector).apply_to(before, scaling_coef=5.0, in_place=False))

    merged = [build_model(phase).merge_and_unload() for phase in (0.0, 1.0)]
    return {"whole": run(build_base(), build_base(0.05)), "adapter": run(*merged)}


def record_blade(folder: Path) -> dict[str, Any]:
    """`compute_clamped_entropy_loss` on rows that are all answer but for their first token, and on rows with prompts."""
    blob = git(folder.parent, "hash-object", str((folder / BLADE_FILE).resolve()))
    if blob != BLADE_BLOB:
        sys.exit(f"{folder / BLADE_FILE}: is {blob}; the file at {COMMITS['blade']}, blob {BLADE_BLOB}, is needed")
    loss = load(folder, BLADE_FILE).compute_clamped_entropy_loss

    def run(pairs: tuple[Pair, ...], tau: float) -> dict[str, Any]:
        model = build_model(1.0)
        return figures(loss(model, padded(pairs), "cpu", tau), model)

    return {
        "whole": [run(tuple(whole(pair) for pair in FORGET), tau) for tau in (0.85, 0.95)],
        "prompts": run(FORGET, 0.9)["loss"],
    }


if __name__ == "__main__":
    main()
