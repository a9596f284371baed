"""Ours against loss functions of the repositories of robust unlearning on the tiny model: equal to 1e-5, gradients included.

The figures were recorded by `record_robust.py`, which names repositories and commits. The model is in phase 1, the
reference in phase 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ours import adapter_gradients, assert_same_gradients, close, items
from tiny import (
    ALTERNATIVE,
    FORGET,
    REFUSED,
    RETAIN,
    SUBJECTS,
    build_model,
    build_tokenizer,
    common_directions,
    set_adapter,
    whole,
)
from torch import Tensor

from scopewise.methods.base import Answers, make_method
from scopewise.training.trainer import UnlearningConfig, UnlearningTrainer

THEIRS = json.loads(Path(__file__).with_name("robust.json").read_text(encoding="utf-8"))

Step = Callable[..., tuple[float, dict[str, Tensor], Any]]


def same(found: tuple[float, dict[str, Tensor], Any], theirs: dict[str, Any]) -> None:
    loss, gradients, _ = found
    assert loss == close(theirs["loss"])
    assert_same_gradients(gradients, theirs["gradients"])


def test_jens_un(step: Step) -> None:
    """The forget term with other tokens than "No Idea", and the retain term alone."""
    same(step("jens_un", FORGET, (), 1.0, prepared=True, text="w5 w6", retain="none"), THEIRS["jens_un"]["forget"])
    same(step("jens_un", FORGET, RETAIN, 1.0, forget_weight=0.0), THEIRS["jens_un"]["retain"])


def test_me_gd(step: Step) -> None:
    """Their script weights the first term by .1 outside of the function."""
    same(step("me_gd", FORGET, (), 1.0, forget_weight=1.0, retain="none"), THEIRS["me_gd"]["forget"])
    same(step("me_gd", FORGET, RETAIN, 1.0, forget_weight=0.0), THEIRS["me_gd"]["retain"])


def test_idk_ap(step: Step) -> None:
    """The retain term alone: equal. Their CE is a mean over tokens, ours over rows: the rows weighted by tokens."""
    same(step("idk_ap", ALTERNATIVE, RETAIN, 1.0, refused=REFUSED, forget_weight=0.0), THEIRS["idk_ap"]["retain"])
    tokens = [len(answer) for _, answer in ALTERNATIVE]
    own = [step("idk_ap", ALTERNATIVE[i : i + 1], (), 1.0, retain="none")[0] for i in range(len(ALTERNATIVE))]
    mean = sum(n * loss for n, loss in zip(tokens, own, strict=True)) / sum(tokens)
    assert mean == close(THEIRS["idk_ap"]["forget"]["loss"])


def test_ihl(step: Step) -> None:
    same(step("ihl", FORGET, (), 1.0, retain="none"), THEIRS["ihl"])


def test_max_ent_where_all_is_answer(step: Step) -> None:
    """Theirs is over every token of a text that another precedes: ours over rows of one prompt token."""
    same(step("max_ent", [whole(pair) for pair in FORGET], (), 1.0, retain="none"), THEIRS["max_ent"])


def test_mcu() -> None:
    """Each row's mean over the answer tokens' states after the first block; ours are given unit vectors."""
    common = common_directions()
    for pair, theirs in zip(FORGET, THEIRS["mcu"], strict=True):
        ids = torch.tensor([pair[0] + pair[1]])
        with torch.no_grad():
            states = build_model(1.0)(input_ids=ids, output_hidden_states=True).hidden_states[1][0, len(pair[0]) :]
        count = len(pair[1])
        row = torch.zeros(count, dtype=torch.long)
        given = Answers(
            torch.zeros(count, 0), row, row, 1, hidden=states, statistics=common / common.norm(dim=-1, keepdim=True)
        )
        assert make_method("mcu", steering=1.0).forget_loss(given).item() == close(theirs)


def test_per_mu(step: Step) -> None:
    """Their noise, and their mean over answers and the position after each: theirs are given without their last token."""
    found = step("per_mu", FORGET, (), 1.0, subjects=SUBJECTS, retain="none", disturbed="first_block")
    same(found, THEIRS["per_mu"])


def test_sam(tmp_path: Path) -> None:
    """The gradients of a whole step: ascent at θ + ε, and twice descent at θ."""
    model = build_model()
    trainer = UnlearningTrainer(
        model,
        "gradient_ascent+sam",
        UnlearningConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            disable_tqdm=True,
            method_args={"retain": "ce", "retain_weight": 2.0},
            wrapper_args={"sam": {"rho": 0.5}},
        ),
        forget_dataset=items(FORGET[:1], "forget"),
        retain_dataset=items(RETAIN[:1], "retain"),
        processing_class=build_tokenizer(),
        region="all",
    )
    set_adapter(model, 1.0)
    batches, _ = trainer.get_batch_samples(iter([trainer.data_collator([0, 1])]), 1, torch.device("cpu"))
    trainer.training_step(model.eval(), batches[0])
    assert_same_gradients(adapter_gradients(model), THEIRS["sam"]["gradients"])


def test_recorded_by_the_script_beside() -> None:
    assert (Path(__file__).parents[2] / THEIRS["script"]).is_file()
    assert all(len(commit) == 40 for commit in THEIRS["commit"].values())
