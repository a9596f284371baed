"""What every method must satisfy, whichever it is: a new row of the table is tested without a new test.

What the tests have to be told of a method stands in the sets below; a method in none of them is tested as ascent whose loss
has no stop-gradient.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from engines import engine_of, forward_of, hold
from often import often
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.methods import METHODS
from scopewise.methods.base import RETAIN_LOSSES, Answers, Constrained, Method, Preference
from scopewise.methods.base import make_method as made
from scopewise.models.reference import frozen_reference
from scopewise.testing.methods import PROPERTIES, TRAINED, answers_of, labels_of, moved, random_answers, with_reference
from scopewise.testing.world import World

DESCENDS = {"random_labels", "adversarial", "relearn", "task_vector", "jens_un", "idk_ap", "retrain"}
"""Losses that make their labels more likely."""
IGNORES_LABELS = {"rmu", "mcu", "pdu", "blade", "me_gd", "max_ent", "per_mu"}
"""Losses that do not read labels: which way the true answer's likelihood goes is not said."""

ON_AN_UNTRAINED_MODEL = {
    "blade": {"tau": 1.0},
    "sim_npo": {"delta": 6.0},
    "wga": {"beta": 0.1},
    "sat_imp": {"beta1": 0.1},
}
"""Hyper-parameters with which a loss has a gradient where every token is unlikely, as these leave such tokens alone."""

methods = pytest.mark.parametrize("name", METHODS)


def make_method(name: str, **arguments: Any) -> Method:
    return made(name, **{**ON_AN_UNTRAINED_MODEL.get(name, {}), **arguments})


@methods
@pytest.mark.parametrize("what", PROPERTIES)
def test_property(name: str, what: str, world: World) -> None:
    hold(PROPERTIES[what], make_method(name), world)


@methods
@pytest.mark.parametrize("adapter", often([True, False], {True}))
@pytest.mark.parametrize("what", TRAINED)
def test_property_of_a_training(name: str, what: str, adapter: bool, world: World) -> None:
    hold(TRAINED[what], make_method(name), world, adapter)


def test_what_does_not_apply() -> None:
    """Of a loss with a stop-gradient finite differences see what the gradient leaves out; test_losses.py derives these."""
    assert {name for name in METHODS if made(name).stops_gradient} == {"wga", "sat_imp", "ce_u", "per_mu"}


def test_random_labels_are_other_ones_for_another_seed(tiny: Any, encoded: Any) -> None:
    method = make_method("random_labels")
    assert method.relabel(encoded[0], engine_of(tiny[0]), 0) != method.relabel(encoded[0], engine_of(tiny[0]), 1)


def test_adversarial_labels_are_the_strongest_wrong_tokens(tiny: Any, encoded: Any) -> None:
    """By a plain forward of each row alone, with the true token struck out."""
    model, items = tiny[0], encoded[0]
    for item, got in zip(items, make_method("adversarial").relabel(items, engine_of(model), 0), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([item.prompt_ids + item.answer_ids])).logits[0]
        for t, (true, wrong) in enumerate(zip(item.answer_ids, got, strict=True)):
            row = logits[len(item.prompt_ids) - 1 + t].clone()
            row[true] = -torch.inf
            assert wrong != true
            assert float(row[wrong]) == pytest.approx(float(row.max()), abs=1e-5)


@pytest.mark.parametrize("term", RETAIN_LOSSES)
def test_gradient_of_the_retain_loss_by_finite_differences(term: str) -> None:
    given = random_answers()

    def loss(logits: Any) -> Any:
        return RETAIN_LOSSES[term](replace(moved(given, logits), reference_hidden=given.reference_logits))

    assert torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IGNORES_LABELS])
def test_direction(name: str) -> None:
    """One small step from the reference raises the CE of the labels (ascent), or lowers it."""
    given = random_answers()
    given = with_reference(given, given.logits)
    logits = given.logits.clone().requires_grad_(True)
    make_method(name, **({"ignore_first_tokens": 0} if name == "ce_u" else {})).forget_loss(
        replace(given, logits=logits)
    ).sum().backward()
    after = replace(given, logits=given.logits - 0.1 * logits.grad)
    change = after.nll() - given.nll()
    assert bool((change < 0).all() if name in DESCENDS else (change > 0).all())


@pytest.mark.parametrize("name", [name for name in METHODS if not made(name).stops_gradient])
def test_a_step_lowers_the_loss(name: str, tiny: Any, make_trainer: Any) -> None:
    """Through the whole trainer, on the forget rows alone; a task vector goes the other way at the end."""
    model, tokenizer = tiny
    if (
        name == "undial"
    ):  # a random model gives the true token 1/300, so a step changes its loss by less than float32 resolves
        model = copy.deepcopy(model).double()
    method = make_method(name, retain_weight=0.0)
    trainer = make_trainer(copy.deepcopy(model), tokenizer, method, per_device_train_batch_size=16, learning_rate=0.01)
    values = []
    for state in ("before", "after"):
        if state == "after":
            trainer.train()
        batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
        if state == "before":
            trainer.prepare()
            batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
        trainer.model.eval()
        with torch.no_grad(), frozen_reference(forward_of(model)) as trainer.loss.reference:
            values.append(float(trainer.loss(trainer.forward, batches[0])[0]))
    assert values[1] > values[0] if name == "task_vector" else values[1] < values[0]


@pytest.mark.parametrize("size", [8, 2, 1])
def test_token_mean_counts_tokens_over_the_whole_step(size: int, tiny: Any, make_trainer: Any) -> None:
    """Fine-tuning's reduction: one step of eight rows is a step on the mean CE of all their answer tokens together."""
    from scopewise.methods.cross_entropy import Retrain

    model, tokenizer = tiny
    trainer = make_trainer(
        copy.deepcopy(model),
        tokenizer,
        Retrain(),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
    )
    items = trainer.train_dataset.forget
    trainer.train()
    batch = collate(items)
    torch.nn.functional.cross_entropy(forward_of(model).logits(batch), batch["label"]).backward()
    for wanted, got in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert float((wanted - 0.1 * wanted.grad - got).detach().abs().max()) < 1e-6


def test_kl_of_the_untouched_model_is_zero(trained_adapter: Any, encoded: Any) -> None:
    model, _ = trained_adapter
    batch = collate(encoded[1])
    with frozen_reference(forward_of(model)) as reference, reference() as frozen:
        kept = frozen.logits(batch)
    logits = forward_of(model).logits(batch)
    answers = Answers(logits, batch["label"], batch["row"], len(encoded[1]), reference_logits=kept)
    assert float(RETAIN_LOSSES["kl"](answers).detach().abs().max()) < 1e-6


@methods
@pytest.mark.parametrize("terms", often(["own", "ce", "kl", "js", "ap", "hidden", "ce+kl"], {"own", "ce+kl"}))
def test_loss_of_a_step_is_the_weighted_sum_of_its_terms(
    name: str, terms: str, tiny: Any, world: World, make_trainer: Any
) -> None:
    """All sixteen rows in one step: `.5 · L_forget + 3 · L_retain`, computed apart. At the start KL and distances are zero."""
    model, tokenizer = tiny
    if terms == "ap" and isinstance(make_method(name), Constrained):
        with pytest.raises(ConfigError, match=r"method_args\.retain: 'ap'"):
            make_method(name, retain=terms)
        return
    method = make_method(name, forget_weight=0.5, retain_weight=3.0, **({} if terms == "own" else {"retain": terms}))
    trainer = make_trainer(model, tokenizer, method, per_device_train_batch_size=16)
    trainer.prepare()
    rows = trainer.train_dataset

    def weighted(value: torch.Tensor, items: list[Encoded]) -> float:
        weight = method.weight(torch.tensor([len(item.answer_ids) for item in items]))
        return float((value * weight).sum() / weight.sum())

    given = answers_of(method, model, rows.forget, dict(zip(map(id, rows.forget), rows.labels, strict=True)))
    given = replace(given, statistics=trainer.loss.statistics)
    if given.logits.shape[-1]:  # the model itself is the reference
        given = with_reference(given, given.logits)
    if rows.subject:
        perturbed, of_subject = trainer.loss._perturbed(forward_of(model), rows.collate(range(len(rows.forget))))
        given = replace(given, perturbed_logits=perturbed, of_subject=of_subject)
    if rows.preferred:
        other = answers_of(Method(), model, rows.preferred, labels_of(Method(), rows.preferred, world))
        given = replace(given, preferred=replace(other, reference_nll=other.nll_sum()))
    want = 0.5 * weighted(method.forget_loss(given), rows.forget)
    if "ce" in method.retain_terms:
        kept = answers_of(Method(), model, rows.retain, labels_of(Method(), rows.retain, world))
        ce = weighted(kept.nll(), rows.retain)
        factor = 3.0
        if isinstance(method, Constrained):
            factor += method.penalty * max(0.0, ce - method.budget_factor * ce - method.budget_nats)
        want += factor * ce
    if "ap" in method.retain_terms:
        sums = [trainer.engine.sequence_nll(items) for items in (rows.retain, rows.retain_preferred)]
        ratio = torch.tensor(sums[1]) - torch.tensor(sums[0])
        want += 3.0 * weighted((1 + (-0.1 * ratio).exp()).log() / 0.1, rows.retain)
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    assert len(batches) == 1
    with frozen_reference(forward_of(model)) as trainer.loss.reference:
        got = float(trainer.compute_loss(model, batches[0]).detach())
    assert got == pytest.approx(want, rel=1e-5, abs=1e-5)


@methods
def test_retain_term_needs_rows_and_an_even_step(name: str, tiny: Any, forget: Any, make_trainer: Any) -> None:
    method = make_method(name)
    if not method.retain_terms:
        make_trainer(*tiny, method, per_device_train_batch_size=3)._get_train_sampler()
        return
    with pytest.raises(ConfigError, match="must be even"):
        make_trainer(*tiny, name, per_device_train_batch_size=3).train()


@pytest.mark.parametrize("name", [n for n in METHODS if isinstance(make_method(n), Preference)])
@pytest.mark.parametrize("source", ["refusal", "generated"])
def test_alternatives_are_other_answers_and_the_same_for_a_seed(
    name: str, source: str, tiny: Any, make_trainer: Any
) -> None:
    texts = []
    for seed in (0, 0, 1):
        trainer = make_trainer(*tiny, make_method(name, alternative=source), seed=seed)
        truth = [item.row.answer for item in trainer.train_dataset.forget]
        trainer.prepare()
        rows = trainer.train_dataset
        texts.append([item.row.answer for item in rows.preferred or rows.forget])
        assert all(a and a != b for a, b in zip(texts[-1], truth, strict=True))
        assert [item.row.question for item in rows.forget] == [
            item.row.question for item in rows.preferred or rows.forget
        ]
    assert texts[0] == texts[1] != texts[2]
