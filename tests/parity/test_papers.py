"""Ours against functions of several papers' own repositories on the tiny model: equal to 1e-5 where both mean the same.

The figures were recorded by `record_papers.py`, which names repositories and commits. The model is in phase 1, the
reference in phase 0. Where a difference is intended, the *relation* between the two numbers is asserted, derived in the
docstring.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ours import TOLERANCE, adapter_gradients, assert_same_gradients, close, items, kl_of_positions, logits_of
from tiny import (
    ALTERNATIVE,
    FORGET,
    RETAIN,
    VOCAB,
    build_base,
    build_model,
    build_tokenizer,
    digest,
    padded,
    set_adapter,
    whole,
)
from torch import Tensor

from scopewise.data.prompt import Encoded
from scopewise.localizers.base import Scopes
from scopewise.localizers.grail import Grail
from scopewise.localizers.weight_attribution import WeightAttribution
from scopewise.models.engine import Engine
from scopewise.models.scale_change import scale_change, trained_state
from scopewise.ops import token_entropy
from scopewise.region import Region, parameter_name
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

THEIRS = json.loads(Path(__file__).with_name("papers.json").read_text(encoding="utf-8"))

Step = Callable[..., tuple[float, dict[str, Tensor], Any]]


# AltPO


def test_alt_po(step: Step) -> None:
    """The forget term of a batch, and a pair with retain weight 2: equal, gradients included."""
    loss, gradients, _ = step("alt_po", FORGET, (), 1.0, ALTERNATIVE, beta=0.1, retain="none")
    assert loss == close(THEIRS["alt_po"]["forget"]["loss"])
    assert_same_gradients(gradients, THEIRS["alt_po"]["forget"]["gradients"])
    loss, gradients, _ = step("alt_po", FORGET[:1], RETAIN[:1], 1.0, ALTERNATIVE[:1], beta=0.1, retain_weight=2.0)
    assert loss == close(THEIRS["alt_po"]["pair"]["loss"])
    assert_same_gradients(gradients, THEIRS["alt_po"]["pair"]["gradients"])


# ReLearn


def test_relearn_with_ce(step: Step) -> None:
    """Token means of the replaced answers and of the retain answers: equal, gradients included."""
    loss, gradients, _ = step("relearn", ALTERNATIVE, RETAIN, 1.0, retain="ce")
    assert loss == close(THEIRS["relearn"]["ce"]["loss"])
    assert_same_gradients(gradients, THEIRS["relearn"]["ce"]["gradients"])


def test_relearn_with_ce_and_kl(step: Step) -> None:
    """Intended difference: their KL is a mean over all B · S positions of the retain batch, ours over its answers' tokens."""
    kl, wanted = kl_of_positions(RETAIN)
    loss, *_ = step("relearn", ALTERNATIVE, RETAIN, 1.0)
    ce = THEIRS["relearn"]["ce"]["loss"]
    assert loss - ce == close(kl[wanted].mean().item())
    assert THEIRS["relearn"]["ce_kl"]["loss"] - ce == close(kl.mean().item())
    assert abs(float(kl[wanted].mean() - kl.mean())) > 1e-3


# GRAIL


@pytest.fixture
def grail_region(labels_as_recorded: dict[str, list[Encoded]]) -> Region:
    """The localizer's region, on the labels that theirs was given."""
    localizer = Grail(repeats=3, corrupt="labels", overlap_fraction=0.1, core_fraction=0.2)
    scopes = Scopes(labels_as_recorded["forget"], labels_as_recorded["retain"])
    return localizer.region(Engine(build_model(), build_tokenizer()), scopes)


def test_grail_masks(grail_region: Region) -> None:
    """What each term may not change: the same entries of every matrix (both their domains were given the same rows)."""
    for term, key in (("forget", "overlap"), ("retain", "core")):
        theirs = THEIRS["grail"][key]
        assert len(theirs) == len(grail_region.entries) == 16
        for name, places in theirs.items():
            mask = grail_region.mask(parameter_name(name), term)
            assert mask is not None
            assert (~mask).flatten().nonzero()[0].tolist() == places
        assert sum(len(places) for places in theirs.values()) > 5


def test_grail_step(grail_region: Region, tmp_path: Path) -> None:
    """Gradients of a step of one forget and one retain row: the sum of theirs, each row alone, entry by entry.

    Intended difference: in a step of theirs the second row would zero what the first has left, too (all of the gradient
    that has been accumulated is masked, by the kind of the row that came last).
    """
    theirs = THEIRS["grail"]
    model = build_model()
    trainer = UnlearningTrainer(
        model,
        "grail",
        UnlearningConfig(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True),
        forget_dataset=items(FORGET[:1], "forget"),
        retain_dataset=items(RETAIN[:1], "retain"),
        processing_class=build_tokenizer(),
        region=grail_region,
    )
    set_adapter(model, 1.0)
    batches, _ = trainer.get_batch_samples(iter([trainer.data_collator([0, 1])]), 1, torch.device("cpu"))
    trainer.mask.on_train_begin(None, None, None, model)
    try:
        loss = trainer.training_step(model, batches[0])
    finally:
        trainer.mask.on_train_end(None, None, None)
    assert loss.item() == close(theirs["forget"]["loss"] + theirs["retain"]["loss"])
    ours = adapter_gradients(model)
    assert ours.keys() == theirs["forget"]["gradients"].keys()
    for name, gradient in ours.items():
        expected = torch.tensor(theirs["forget"]["gradients"][name]) + torch.tensor(theirs["retain"]["gradients"][name])
        tolerance = TOLERANCE * float(expected.abs().max())
        torch.testing.assert_close(gradient.flatten(), expected, rtol=TOLERANCE, atol=tolerance)


# WAGLE


def test_weight_attribution() -> None:
    """Their gradients are sums over n rows and their µ divides a sum: |Σg_f (θ - Σg_r / µ)| = n |ḡ_f (θ - ḡ_r / γ)|, γ = µ/n.

    They store it negated. On the linear layers but the head, of a model that is trained as a whole.
    """
    theirs = THEIRS["weight_attribution"]
    localizer = WeightAttribution(gamma=theirs["mu"] / theirs["rows"])
    scores = localizer.scores(
        Engine(build_base(), build_tokenizer()), Scopes(items(FORGET, "forget"), items(RETAIN, "retain"))
    )
    assert_same_gradients(scores, theirs["scores"], factor=-1 / theirs["rows"], matrices=14)


# Task vector


@pytest.mark.parametrize("adapter", [False, True])
def test_task_vector(adapter: bool) -> None:
    """θ - 5 (θ_learnt - θ), entry by entry of every parameter; with LoRA, of the merged weights."""
    model = build_model(0.0) if adapter else build_base()
    before = trained_state(model)
    if adapter:
        set_adapter(model, 1.0)
    else:
        model.load_state_dict(build_base(0.05).state_dict())
    scale_change(model, before, -5.0)
    merged = model.merge_and_unload() if adapter else model
    theirs = THEIRS["task_vector"]["adapter" if adapter else "whole"]
    ours = digest(dict(merged.named_parameters()))
    assert ours.keys() == theirs.keys()
    for name, numbers in theirs.items():
        assert ours[name] == pytest.approx(numbers, rel=TOLERANCE, abs=TOLERANCE * numbers[0]), name


# BLADE


@pytest.mark.parametrize("index", [0, 1])
def test_blade_where_all_is_answer(index: int, step: Step) -> None:
    """Theirs is over every position of a row, its last too: ours, with any token after it, over a row of one prompt token."""
    rows = [(prompt, (*answer, 5)) for prompt, answer in map(whole, FORGET)]
    theirs = THEIRS["blade"]["whole"][index]
    loss, gradients, _ = step(
        "blade", rows, RETAIN, 1.0, tau=(0.85, 0.95)[index], retain_weight=0.0, penalty=0.0, inner_steps=0
    )
    assert loss == close(theirs["loss"])
    assert_same_gradients(gradients, theirs["gradients"])


def test_blade_forgets_prompts_too(step: Step) -> None:
    """Intended difference: theirs is over prompt, answer and last position; ours over those that predict the answer.

    Theirs · (number of tokens) = (ours · number of answer tokens) + what all other positions lack of the entropy.
    """
    inputs, tau = padded(FORGET), 0.9
    lack = (tau * math.log(VOCAB) - token_entropy(logits_of(1.0, inputs).flatten(0, 1))).clamp(min=0)
    lack = lack.reshape(inputs["labels"].shape)
    wanted = (inputs["labels"] != -100).roll(-1, dims=1)
    other = inputs["attention_mask"].bool() & ~wanted
    loss, *_ = step("blade", FORGET, RETAIN, 1.0, tau=tau, retain_weight=0.0, penalty=0.0, inner_steps=0)
    tokens = int(inputs["attention_mask"].sum())
    assert THEIRS["blade"]["prompts"] * tokens == close(loss * int(wanted.sum()) + lack[other].sum().item())
    assert lack[other].sum().item() > 1.0


def test_recorded_by_the_script_beside() -> None:
    assert set(THEIRS["commit"]) == {
        "Alternate-Preference-Optimization",
        "GRAIL",
        "unlearn",
        "WAGLE",
        "muse_bench",
        "blade",
    }
    assert all(len(commit) == 40 for commit in THEIRS["commit"].values())
    assert (Path(__file__).parents[2] / THEIRS["script"]).is_file()
