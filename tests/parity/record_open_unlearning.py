"""Run OpenUnlearning's trainers on the tiny model and write the losses and gradients they return.

    python tests/parity/record_open_unlearning.py CHECKOUT

CHECKOUT is an unchanged clone of locuslab/open-unlearning at d3d7cf9. Their `compute_loss` runs on instances that were
never initialised, so that neither Hydra nor DeepSpeed is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from checkout import gradients, instance, load, origin, stand_in, verified, write
from tiny import (
    ALTERNATIVE,
    FORGET,
    RETAIN,
    VOCAB,
    Pair,
    build_model,
    control_vector,
    digest,
    padded,
    whole,
    without_last,
)

COMMIT = "d3d7cf9e6b3c125d16687d4232680d8d83548f1a"
OUTPUT = Path(__file__).with_name("open_unlearning_d3d7cf9.json")
WIDE = 2 * VOCAB
"""UNDIAL reads token V - 100 wherever a label is -100, so V has to be above 100 for a padded batch."""


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    checkout = verified(parser.parse_args().checkout, COMMIT)
    torch.set_num_threads(1)
    trainers = load_trainers(checkout)
    weighted = {
        "npo": (trainers["NPO"], {"beta": 0.1}),
        "sim_npo": (trainers["SimNPO"], {"beta": 0.5, "delta": 0.3}),
        "wga": (trainers["WGA"], {"beta": 0.5}),
        "sat_imp": (trainers["SatImp"], {"beta1": 0.5, "beta2": 2.0}),
        "grad_diff": (trainers["GradDiff"], {}),
    }
    recorded = {
        **origin(__file__, COMMIT),
        "nll": [step(trainers["GradDiff"], FORGET, rows, 0.0, 1.0)["loss"] for rows in (*alone(RETAIN), RETAIN)],
        **{
            name: {
                "settings": settings,
                "forget": step(cls, FORGET, RETAIN, 1.0, 0.0, **settings),
                "pair": step(cls, FORGET[:1], RETAIN[:1], 1.0, 0.5, **settings),
                "batch": step(cls, FORGET, RETAIN, 1.0, 0.5, **settings),
            }
            for name, (cls, settings) in weighted.items()
        },
        "dpo": record_dpo(trainers["DPO"]),
        "kl": record_kl(trainers["GradDiff"]),
        "rmu": record_rmu(trainers["RMU"]),
        "undial": record_undial(trainers["UNDIAL"]),
        "ce_u": [step(trainers["CEU"], FORGET, RETAIN, 1.0, 0.0, ignore_first_n_answer_tokens=n) for n in (0, 1, 2)],
        "pdu": [record_pdu(trainers["PDU"], eps) for eps in (4.0, 6.0)],
    }
    write(OUTPUT, recorded)


def load_trainers(checkout: Path) -> dict[str, type]:
    """Import their trainers by file: the package would import DeepSpeed and Hydra's settings."""
    for name in ("trainer", "trainer.unlearn"):
        stand_in(name)
    stand_in("trainer.unlearn.base", UnlearnTrainer=type("UnlearnTrainer", (), {}))
    stand_in("deepspeed", DeepSpeedEngine=type("DeepSpeedEngine", (), {}))
    load(checkout, "src/trainer/utils.py", "trainer.utils")
    grad_diff = load(checkout, "src/trainer/unlearn/grad_diff.py", "trainer.unlearn.grad_diff")
    files = {
        "NPO": "npo",
        "SimNPO": "simnpo",
        "DPO": "dpo",
        "RMU": "rmu",
        "UNDIAL": "undial",
        "WGA": "wga",
        "SatImp": "satimp",
        "CEU": "ceu",
        "PDU": "pdu",
    }
    found = {
        name: getattr(load(checkout, f"src/trainer/unlearn/{file}.py", f"trainer.unlearn.{file}"), name)
        for name, file in files.items()
    }
    return {"GradDiff": grad_diff.GradDiff, **found}


def step(
    cls: type, forget: Any, retain: Sequence[Pair], gamma: float, alpha: float, vocab: int = VOCAB, **attributes: Any
) -> dict[str, Any]:
    """Return loss and gradients of one call of their `compute_loss`: the model is in phase 1, its reference in phase 0."""
    model, reference = build_model(1.0, vocab), build_model(0.0, vocab)
    trainer = instance(
        cls,
        **{
            "model": model,
            "ref_model": reference,
            "gamma": gamma,
            "alpha": alpha,
            "retain_loss_type": "NLL",
            **attributes,
        },
    )
    if cls.__name__ == "RMU":
        trainer.model_module, trainer.ref_module = (
            trainer._get_matching_module(m, r"base_model\.model\.model\.layers\.0") for m in (model, reference)
        )
    inputs = forget if isinstance(forget, dict) else padded(tuple(forget))
    loss = trainer.compute_loss(model, {"forget": inputs, "retain": padded(tuple(retain))})
    loss.backward()
    return {"loss": loss.item(), "gradients": digest(gradients(model))}


def alone(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """Return a batch of one for each row."""
    return [pairs[i : i + 1] for i in range(len(pairs))]


def record_dpo(cls: type) -> dict[str, Any]:
    """Return their DPO with other answers to the same prompts."""

    def run(count: int, alpha: float) -> dict[str, Any]:
        forget = {"original": padded(FORGET[:count]), "alternate": padded(ALTERNATIVE[:count])}
        return step(cls, forget, RETAIN[:count], 1.0, alpha, beta=0.1)

    return {"forget": run(3, 0.0), "pair": run(1, 0.5)}


def record_kl(cls: type) -> dict[str, Any]:
    """Return their KL retain term alone: `unpadded` rows without their last token, and a padded batch."""
    rows = [(without_last(pair),) for pair in RETAIN]
    return {
        "unpadded": [step(cls, FORGET, row, 0.0, 1.0, retain_loss_type="KL") for row in rows],
        "padded": step(cls, FORGET, RETAIN, 0.0, 1.0, retain_loss_type="KL"),
    }


def record_rmu(cls: type) -> dict[str, Any]:
    """Return both terms and their sum, row by row, and each term of a batch of unequal answers."""
    settings = {"retain_loss_type": "EMBED_DIFF", "control_vec": control_vector(2.0).reshape(1, 1, -1)}
    pairs = list(zip(alone(FORGET), alone(RETAIN), strict=True))
    return {
        "alone": [step(cls, f, r, 1.0, 3.0, **settings) for f, r in pairs],
        "forget_alone": [step(cls, f, r, 1.0, 0.0, **settings)["loss"] for f, r in pairs],
        "retain_alone": [step(cls, f, r, 0.0, 1.0, **settings)["loss"] for f, r in pairs],
        "forget_batch": step(cls, FORGET, RETAIN, 1.0, 0.0, **settings)["loss"],
        "retain_batch": step(cls, FORGET, RETAIN, 0.0, 1.0, **settings)["loss"],
    }


def record_undial(cls: type) -> dict[str, Any]:
    """Return rows that are all answer but for their first token, and a padded batch with prompts."""
    return {
        "alone": [step(cls, (whole(pair),), RETAIN, 1.0, 0.0, beta=3.0) for pair in FORGET],
        "batch": step(cls, FORGET, RETAIN, 1.0, 0.0, WIDE, beta=3.0)["loss"],
    }


def record_pdu(cls: type, eps: float) -> dict[str, Any]:
    """Return loss and gradients, and what the dual variable (2 before) has become."""
    preferences = [1.0, 2.0]
    figures = step(
        cls,
        FORGET,
        RETAIN,
        1.0,
        2.0,
        preferences=preferences,
        retain_loss_eps=eps,
        primal_dual=True,
        can_update=True,
        dual_update_upon="step",
        dual_step_size=0.7,
        loss_names=["forget", "retain"],
        log=lambda figures: None,
    )
    return {"eps": eps, **figures, "dual": preferences[1]}


if __name__ == "__main__":
    main()
