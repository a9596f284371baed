"""Our losses against OpenUnlearning's trainers on the tiny model: equal to 1e-5 where both mean the same.

The figures were recorded by `record_open_unlearning.py` from locuslab/open-unlearning at d3d7cf9: the model is in phase 1,
the reference in phase 0, forget and retain rows are a batch of three each, padded. Where a difference is intended, the
*relation* between the two numbers is asserted, derived in the docstring.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ours import assert_same_gradients, close, kl_of_positions, logits_of
from tiny import ALTERNATIVE, FORGET, RETAIN, VOCAB, padded, whole
from torch import Tensor

from scopewise.methods.rmu import RMU
from scopewise.ops import token_cross_entropy

THEIRS = json.loads(Path(__file__).with_name("open_unlearning_d3d7cf9.json").read_text(encoding="utf-8"))
COUNTS = [len(answer) for _, answer in FORGET]
KEPT = [len(answer) for _, answer in RETAIN]

Step = Callable[..., tuple[float, dict[str, Tensor], Any]]

WEIGHTS = {"forget_weight": 1.0, "retain_weight": 0.5}


def settings(name: str) -> dict[str, float]:
    return dict(THEIRS[name]["settings"])


# Forget terms with a CE retain term


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("npo", "npo"), ("sim_npo", "sim_npo"), ("ga_descent", "grad_diff"), ("dpo", "dpo"), ("alt_po", "dpo")],
)
def test_a_pair(ours: str, theirs: str, step: Step) -> None:
    """One forget and one retain row, weights 1 and ½: equal, gradients included."""
    given = {"beta": 0.1} if theirs == "dpo" else settings(theirs)
    others = ALTERNATIVE[:1] if theirs == "dpo" else ()
    loss, gradients, _ = step(ours, FORGET[:1], RETAIN[:1], 1.0, others, **WEIGHTS, **given)
    assert loss == close(THEIRS[theirs]["pair"]["loss"])
    assert_same_gradients(gradients, THEIRS[theirs]["pair"]["gradients"])


@pytest.mark.parametrize(
    ("ours", "theirs"), [("npo", "npo"), ("sim_npo", "sim_npo"), ("dpo", "dpo"), ("alt_po", "dpo")]
)
def test_forget_term_of_a_batch(ours: str, theirs: str, step: Step) -> None:
    """The mean over rows of a value per row, in both: equal, gradients included, whatever the rows' lengths."""
    given = {"beta": 0.1} if theirs == "dpo" else settings(theirs)
    others = ALTERNATIVE if theirs == "dpo" else ()
    loss, gradients, _ = step(ours, FORGET, (), 1.0, others, retain="none", forget_weight=1.0, **given)
    assert loss == close(THEIRS[theirs]["forget"]["loss"])
    assert_same_gradients(gradients, THEIRS[theirs]["forget"]["gradients"])


@pytest.mark.parametrize("name", ["npo", "sim_npo"])
def test_retain_term_weighs_rows_otherwise(name: str, step: Step) -> None:
    """Intended difference: their retain CE is a mean over the tokens of the batch, ours over rows where the forget term is.

    With n_i tokens and CE c_i of row i, theirs is Σ n_i c_i / Σ n_i and ours Σ c_i / 3: exchanging one for the other makes
    ours of theirs.
    """
    *rows, batch = THEIRS["nll"]
    assert batch == close(sum(n * c for n, c in zip(KEPT, rows, strict=True)) / sum(KEPT))
    loss, *_ = step(name, FORGET, RETAIN, 1.0, **WEIGHTS, **settings(name))
    assert loss == close(THEIRS[name]["batch"]["loss"] + 0.5 * (sum(rows) / 3 - batch))
    assert abs(sum(rows) / 3 - batch) > 1e-2


def test_grad_diff_of_a_batch(step: Step) -> None:
    """Intended difference, as above in both terms: by rows here, by tokens there."""
    forget, _, batch = (THEIRS["grad_diff"][key]["loss"] for key in ("forget", "pair", "batch"))
    *rows, kept = THEIRS["nll"]
    assert batch == close(forget + 0.5 * kept)
    ascent = [step("ga_descent", [pair], (), 1.0, retain="none")[0] for pair in FORGET]
    assert forget == close(sum(n * c for n, c in zip(COUNTS, ascent, strict=True)) / sum(COUNTS))
    loss, *_ = step("ga_descent", FORGET, RETAIN, 1.0, **WEIGHTS)
    assert loss == close(sum(ascent) / 3 + 0.5 * sum(rows) / 3)


@pytest.mark.parametrize("name", ["wga", "sat_imp"])
@pytest.mark.parametrize("rows", ["forget", "pair", "batch"])
def test_token_means(name: str, rows: str, step: Step) -> None:
    """The mean over all tokens of the batch in both terms: equal, gradients included, on a padded batch too."""
    count = 1 if rows == "pair" else 3
    retain = {"retain": "none"} if rows == "forget" else {}
    kept = () if rows == "forget" else RETAIN[:count]
    loss, gradients, _ = step(name, FORGET[:count], kept, 1.0, **WEIGHTS, **retain, **settings(name))
    assert loss == close(THEIRS[name][rows]["loss"])
    assert_same_gradients(gradients, THEIRS[name][rows]["gradients"])


@pytest.mark.parametrize("ignored", [0, 1, 2])
def test_ce_u(ignored: int, step: Step) -> None:
    """The mean over all tokens but the first ones of each answer: equal, gradients included."""
    loss, gradients, _ = step("ce_u", FORGET, (), 1.0, ignore_first_tokens=ignored)
    assert loss == close(THEIRS["ce_u"][ignored]["loss"])
    assert_same_gradients(gradients, THEIRS["ce_u"][ignored]["gradients"])


# KL


@pytest.mark.parametrize("index", range(3))
def test_kl_where_the_positions_agree(index: int, step: Step) -> None:
    """Both are KL(reference ‖ model); over positions 1 to n - 1 of a row in both where ours takes all of it as answer."""
    theirs = THEIRS["kl"]["unpadded"][index]
    loss, gradients, _ = step("ga_kl", FORGET[:1], [whole(RETAIN[index])], 1.0, forget_weight=0.0)
    assert loss == close(theirs["loss"])
    assert_same_gradients(gradients, theirs["gradients"])


def test_kl_over_prompts_and_padding(step: Step) -> None:
    """Intended difference: theirs is over all B · S positions of the padded batch, ours before answer tokens.

    Theirs · B · S = Σ_rows n_i KL_i + the KL of all other positions, with n_i answer tokens and KL_i our value of row i.
    """
    kl, wanted = kl_of_positions(RETAIN)
    theirs = THEIRS["kl"]["padded"]["loss"]
    rows = [step("ga_kl", FORGET[:1], [pair], 1.0, forget_weight=0.0)[0] for pair in RETAIN]
    ours = sum(n * value for n, value in zip(KEPT, rows, strict=True))
    assert theirs * kl.numel() == close(ours + kl[~wanted].sum().item())
    assert kl[~wanted].sum().item() > 1.0  # what prompts and padding add is no rounding


# RMU


STEERED = RMU(steering=2.0, layer_fraction=0.0, retain_weight=3.0)


@pytest.mark.parametrize("index", range(3))
def test_rmu_of_one_row_per_term(index: int, step: Step) -> None:
    """Both terms, on the states after block 0 at the answer tokens: equal, gradients (of block 0 alone) included."""
    theirs = THEIRS["rmu"]["alone"][index]
    loss, gradients, _ = step(STEERED, FORGET[index : index + 1], RETAIN[index : index + 1], 1.0)
    assert loss == close(theirs["loss"])
    assert_same_gradients(gradients, theirs["gradients"], matrices=8)


def test_rmu_of_a_batch_mixes_rows_there(step: Step) -> None:
    """Intended difference. With q_i the sum over the n_i answer tokens of row i, ours is the mean of q_i / n_i.

    Theirs divides a vector of q by a column of n, which gives every q_i / n_j, and takes the mean of those: the mean of q
    times the mean of 1/n. Both agree where n is the same for all rows.
    """
    for term, counts in (("forget", COUNTS), ("retain", KEPT)):
        rows = THEIRS["rmu"][f"{term}_alone"]
        q = sum(n * value for n, value in zip(counts, rows, strict=True)) / 3
        assert THEIRS["rmu"][f"{term}_batch"] == close(q * sum(1 / n for n in counts) / 3)
        assert abs(THEIRS["rmu"][f"{term}_batch"] - sum(rows) / 3) > 0.1
    loss, *_ = step(STEERED, FORGET, RETAIN, 1.0)
    forget, retain = (sum(THEIRS["rmu"][f"{term}_alone"]) / 3 for term in ("forget", "retain"))
    assert loss == close(forget + 3.0 * retain)


# UNDIAL


@pytest.mark.parametrize("index", range(3))
def test_undial_where_all_is_answer(index: int, step: Step) -> None:
    """A row whose prompt is one token, unpadded, has no position beside those of its answer: equal, gradients included."""
    theirs = THEIRS["undial"]["alone"][index]
    loss, gradients, _ = step("undial", [whole(FORGET[index])], (), 1.0, beta=3.0)
    assert loss == close(theirs["loss"])
    assert_same_gradients(gradients, theirs["gradients"])


def test_undial_over_prompts_and_padding(step: Step) -> None:
    """Intended difference: theirs is over all B (S - 1) positions, ours before answer tokens, by row.

    Where nothing is to be forgotten they lower the logit of token V - 100 (a label of -100 taken as an index), and learn
    the reference with that. Theirs · B (S - 1) = Σ_rows n_i ours_i + the cross-entropies of those other positions.
    """
    inputs, vocab = padded(FORGET), 2 * VOCAB
    reference, logits = (logits_of(phase, inputs, vocab)[:, :-1] for phase in (0.0, 1.0))
    reference[..., vocab - 100] -= 3.0
    other = inputs["labels"][:, 1:] == -100
    rest = token_cross_entropy(reference[other].softmax(-1), logits[other]).sum().item()
    rows = [step("undial", [pair], (), 1.0, vocab=vocab, beta=3.0)[0] for pair in FORGET]
    ours = sum(n * value for n, value in zip(COUNTS, rows, strict=True))
    assert THEIRS["undial"]["batch"] * other.numel() == close(ours + rest)
    assert other.float().mean().item() > 0.4  # nearly half of what they average is not answer


# PDU


@pytest.mark.parametrize("index", [0, 1])
def test_pdu(index: int, step: Step) -> None:
    """Intended differences: theirs reads the logits one position later, and subtracts λ · budget from the loss.

    Theirs are the logits *at* the answer tokens y_1 … y_n. Ours of the prompt with y_1, answer y_2 … y_n and any token, are
    the same (which token is asked for does not enter). λ = 2 is a constant of the step: its budget moves no gradient.
    Afterwards λ goes up or down by 0.7 times what the budget is exceeded by, in both.
    """
    theirs = THEIRS["pdu"][index]
    shifted = [((*prompt, answer[0]), (*answer[1:], 5)) for prompt, answer in FORGET]
    loss, gradients, trainer = step(
        "pdu",
        shifted,
        RETAIN,
        1.0,
        retain_weight=2.0,
        budget_factor=0.0,
        budget_nats=theirs["eps"],
        dual_step=0.7,
        warmup_fraction=0.0,
    )
    assert loss == close(theirs["loss"] + 2.0 * theirs["eps"])
    assert_same_gradients(gradients, theirs["gradients"])
    trainer.dual.update(float(trainer.step_loss.retain), 0.5)
    assert trainer.dual.multiplier == close(theirs["dual"])
    assert abs(theirs["dual"] - 2.0) > 0.5


def test_pdu_of_the_predicting_logits_is_another_number(step: Step) -> None:
    """The rows as they are: the position that predicts the first answer token comes in, the one after the last goes."""
    loss, *_ = step("pdu", FORGET, RETAIN, 1.0, retain_weight=2.0, budget_factor=0.0)
    theirs = THEIRS["pdu"][0]
    assert abs(loss - theirs["loss"] - 2.0 * theirs["eps"]) > 0.1


def test_recorded_by_the_script_beside() -> None:
    assert THEIRS["commit"].startswith("d3d7cf9")
    assert (Path(__file__).parents[2] / THEIRS["script"]).is_file()
