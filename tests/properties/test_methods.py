"""What every method must satisfy, whichever it is: a new row of the table is tested without a new test.

What the tests have to be told of a method stands in the sets below; a method in none of them is tested as ascent whose loss
has no stop-gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from engines import engine_of, forward_of
from often import often
from scopewise.config import LoraSection
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.methods import METHODS
from scopewise.methods.base import RETAIN_LOSSES, Answers, Constrained, Method, Preference
from scopewise.methods.base import make_method as made
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.reference import frozen_reference
from scopewise.region import Entry, Mask, Region, module_of, parameter_name

STOPPED = {"wga", "sat_imp", "ce_u"}
"""Losses with a stop-gradient: finite differences see what the gradient leaves out; tests/unit/test_losses.py derives them."""
DESCENDS = {"random_labels", "adversarial", "relearn", "task_vector"}
"""Losses that make their labels more likely."""
IGNORES_LABELS = {"rmu", "pdu", "blade"}
"""Losses that do not read labels: which way the true answer's likelihood goes is not said."""

ON_AN_UNTRAINED_MODEL = {
    "blade": {"tau": 1.0},
    "sim_npo": {"delta": 6.0},
    "wga": {"beta": 0.1},
    "sat_imp": {"beta1": 0.1},
}
"""Hyper-parameters with which a loss has a gradient where every token is unlikely, as these leave such tokens alone."""

methods = pytest.mark.parametrize("name", METHODS)
LORA = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.0))


def make_method(name: str, **arguments: Any) -> Method:
    return made(name, **{**ON_AN_UNTRAINED_MODEL.get(name, {}), **arguments})


def labels_of(method: Method, model: Any, items: list[Encoded]) -> dict[int, tuple[int, ...]]:
    """The labels of each row, by the row's identity: what `relabel` gives once, before the first step."""
    return dict(zip(map(id, items), method.relabel(items, engine_of(model), 0), strict=True))


def answers_of(method: Method, model: Any, items: list[Encoded], labels: dict, pad: int = 0) -> Answers:
    """What the method sees, with a made-up reference that depends on each sequence alone."""
    hidden = "hidden" in method.needs
    batch = collate(items, [labels[id(item)] for item in items], pad_id=pad, last=hidden)
    with torch.no_grad():
        layer = method.hidden_layer(2) if hidden else None
        logits, states = forward_of(model).outputs(batch, logits=not hidden, layer=layer)
    given = Answers(
        torch.empty(len(batch["label"]), 0) if logits is None else logits, batch["label"], batch["row"], len(items),
        hidden=states,
    )  # fmt: skip
    return given if logits is None else with_reference(given, logits.roll(1, -1))


def with_reference(given: Answers, reference: torch.Tensor) -> Answers:
    """The answers with a reference that gives `reference`, and with other answers of the same length."""
    own = replace(given, logits=reference, reference_logits=reference)
    other = replace(own, label=(given.label + 1) % reference.shape[-1])
    alternative = replace(other, logits=given.logits, reference_nll=other.nll_sum().detach())
    return replace(given, reference_logits=reference, reference_nll=own.nll_sum().detach(), alternative=alternative)


def losses(method: Method, model: Any, items: list[Encoded], labels: dict, pad: int = 0) -> list[float]:
    return method.forget_loss(answers_of(method, model, items, labels, pad)).tolist()


@methods
def test_loss_of_a_sequence_does_not_depend_on_padding_or_batch_mates(name: str, tiny: Any, encoded: Any) -> None:
    """Alone, among all (padded to the longest), and in reverse order."""
    method, model, items = make_method(name), tiny[0], encoded[0]
    labels = labels_of(method, model, items)
    alone = [losses(method, model, [item], labels)[0] for item in items]
    assert len({len(item) for item in items}) > 1  # some are padded
    assert losses(method, model, items, labels) == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert losses(method, model, items[::-1], labels)[::-1] == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert len({float(f"{x:.4g}") for x in alone}) > 1


@methods
def test_padding_id_changes_nothing(name: str, tiny: Any, encoded: Any) -> None:
    method, model, items = make_method(name), tiny[0], encoded[0]
    labels = labels_of(method, model, items)
    assert losses(method, model, items, labels, pad=0) == losses(method, model, items, labels, pad=7)


@methods
def test_labels_fit_the_answers_and_depend_on_the_seed_alone(name: str, tiny: Any, encoded: Any) -> None:
    method, model, items = make_method(name), tiny[0], encoded[0]
    first = method.relabel(items, engine_of(model), 0)
    assert [len(x) for x in first] == [len(item.answer_ids) for item in items]
    assert all(0 <= token < 300 for x in first for token in x)
    assert method.relabel(items, engine_of(model), 0) == first


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


def random_answers(seed: int = 0) -> Answers:
    """Two answers of two and three tokens, over seven tokens, in float64; states of width 7 are the logits' own."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    label, row = torch.randint(7, (5,), generator=generator), torch.tensor([0, 0, 1, 1, 1])
    reference = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return with_reference(Answers(logits, label, row, 2, hidden=logits), reference)


def moved(given: Answers, logits: torch.Tensor) -> Answers:
    """The answers with other logits (and states)."""
    assert given.alternative is not None
    alternative = replace(given.alternative, logits=logits.roll(1, 0) if len(logits) else logits)
    return replace(given, logits=logits, hidden=logits, alternative=replace(alternative, logits=logits))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STOPPED])
def test_gradient_of_the_forget_loss_by_finite_differences(name: str) -> None:
    given, method = random_answers(), make_method(name)

    def loss(logits: Any) -> Any:
        return method.forget_loss(moved(given, logits))

    assert torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))


@pytest.mark.parametrize("term", RETAIN_LOSSES)
def test_gradient_of_the_retain_loss_by_finite_differences(term: str) -> None:
    given = random_answers()

    def loss(logits: Any) -> Any:
        return RETAIN_LOSSES[term](replace(moved(given, logits), reference_hidden=given.reference_logits))

    assert torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))


@methods
def test_sequences_are_not_mixed(name: str) -> None:
    """The first value has no gradient on the second sequence's tokens (rows 2 to 4)."""
    given = random_answers()
    logits = given.logits.clone().requires_grad_(True)
    make_method(name).forget_loss(moved(given, logits))[0].backward()
    assert bool(logits.grad[:2].any())
    assert not bool(logits.grad[2:].any())


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


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STOPPED])
def test_a_step_lowers_the_loss(name: str, tiny: Any, make_trainer: Any) -> None:
    """Through the whole trainer, on the forget rows alone; a task vector goes the other way at the end."""
    model, tokenizer = tiny
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
        with torch.no_grad(), frozen_reference(forward_of(model)) as trainer.terms.reference:
            values.append(float(trainer.terms(trainer.forward, batches[0])[0]))
    assert values[1] > values[0] if name == "task_vector" else values[1] < values[0]


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {parameter_name(n): p.detach().clone() for n, p in model.named_parameters()}


def largest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[n] - b[n]).abs().max()) for n in a)


@methods
@pytest.mark.parametrize("adapter", often([True, False], {True}))
def test_eight_micro_batches_of_one_are_one_of_eight(
    name: str, adapter: bool, tiny: Any, make_trainer: Callable[..., Any]
) -> None:
    """One SGD step of the same eight rows, cut two ways; dropout off, so that the parameters must agree."""
    model, tokenizer = tiny
    after, start = [], None
    for size in (8, 1):
        trainer = make_trainer(
            copy.deepcopy(model),
            tokenizer,
            make_method(name, retain_weight=2.0),
            peft_config=LORA if adapter else None,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )
        start = parameters(trainer.model)
        trainer.train()
        after.append(parameters(trainer.model))
    assert start is not None
    moved = largest(after[0], start)
    assert moved > 0
    assert largest(after[0], after[1]) < 1e-3 * moved


@pytest.mark.parametrize("size", [8, 2, 1])
def test_token_mean_counts_tokens_over_the_whole_step(size: int, tiny: Any, make_trainer: Any) -> None:
    """Fine-tuning's reduction: one step of eight rows is a step on the mean CE of all their answer tokens together."""
    from scopewise.training.finetune import Descent

    model, tokenizer = tiny
    trainer = make_trainer(
        copy.deepcopy(model),
        tokenizer,
        Descent(),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
    )
    items = trainer.train_dataset.forget
    trainer.train()
    batch = collate(items)
    torch.nn.functional.cross_entropy(forward_of(model).logits(batch), batch["label"]).backward()
    for wanted, got in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert float((wanted - 0.1 * wanted.grad - got).detach().abs().max()) < 1e-6


def region_of(model: Any, chosen: Callable[[str], bool]) -> Region:
    names = [parameter_name(n) for n, p in model.named_parameters() if "lora_" in n or "proj" in n]
    present = {parameter_name(n): p for n, p in model.named_parameters()}
    return Region("test", {}, tuple(Entry(n, present[n].numel(), chosen(n), module_of(n)) for n in names))


@methods
@pytest.mark.parametrize("adapter", often([True, False], {True}))
def test_only_the_region_moves(name: str, adapter: bool, tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """With AdamW and weight decay, which would move a parameter that has no gradient but is in the optimiser."""
    model, tokenizer = tiny
    if adapter:
        model = with_adapter(model, LORA, 0)
        with torch.no_grad():  # a trained adapter: from a fresh one every A would stand still for a step anyhow
            for parameter_of, p in model.named_parameters():
                if "lora_B" in parameter_of:
                    p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    region = region_of(model, lambda n: "layers.0.self_attn.q_proj" in n and ("lora_" in n) == adapter)
    assert 0 < len(region.names) < len(region.entries)
    start = parameters(model)
    optimiser = {"optim": "adamw_torch", "weight_decay": 0.1, "learning_rate": 1e-3}
    if name == "task_vector" and adapter:  # the sum of two products is an adapter of another shape
        return
    trainer = make_trainer(model, tokenizer, make_method(name), region=region, **optimiser)
    trainer.train()
    after = parameters(trainer.model)
    assert {n for n in start if not torch.equal(start[n], after[n])} == region.names


@methods
@pytest.mark.parametrize("adapter", often([True, False], {True}))
def test_only_chosen_weights_of_a_matrix_move(name: str, adapter: bool, tiny: Any, make_trainer: Any) -> None:
    """A mask over single weights, for two steps of AdamW with weight decay and momentum."""
    model, tokenizer = tiny
    if adapter:
        model = with_adapter(model, LORA, 0)
    whole = region_of(model, lambda n: "layers.0.self_attn.v_proj" in n and ("lora_" in n) == adapter)
    shapes = {parameter_name(n): tuple(p.shape) for n, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(shapes[n], generator=generator) < 0.3 for n in whole.names}
    entries = tuple(replace(e, selected=int(drawn[e.name].sum()) if e.chosen else None) for e in whole.entries)
    region = Region("test", {}, entries, masks={n: Mask.pack(mask.numpy()) for n, mask in drawn.items()})
    start = parameters(model)
    trainer = make_trainer(
        model,
        tokenizer,
        make_method(name),
        region=region,
        optim="adamw_torch",
        weight_decay=0.1,
        learning_rate=1e-3,
        max_steps=2,
    )
    trainer.train()
    after = parameters(trainer.model)
    assert {n for n in start if not torch.equal(start[n], after[n])} == region.names
    for n in region.names:
        changed = start[n] != after[n]
        assert not bool((changed & ~drawn[n]).any())
        assert int(changed.sum()) > 0.9 * int(drawn[n].sum())


@methods
def test_the_reference_does_not_move(name: str, tiny: Any, encoded: Any, make_trainer: Any) -> None:
    """A fresh adapter: after training the reference still gives the target's logits, while the model does not."""
    model, tokenizer = tiny
    batch = collate(encoded[1])
    trainer = make_trainer(model, tokenizer, make_method(name, retain="kl"), peft_config=LORA, max_steps=2)
    with (
        torch.no_grad(),
        trainer.forward.kernels.training(trainer.model),
    ):  # as in a training; the fresh adapter changes nothing
        target = forward_of(trainer.model).logits(batch)
    seen: list[Any] = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            with trainer.terms.reference() as frozen:
                seen.append(frozen.logits(batch))

    trainer.add_callback(Look())
    trainer.train()
    with torch.no_grad():
        after = forward_of(trainer.model.eval()).logits(batch)
    assert len(seen) == 2
    assert all(torch.equal(reference, target) for reference in seen)
    assert not torch.equal(after, target)


def test_kl_of_the_untouched_model_is_zero(trained_adapter: Any, encoded: Any) -> None:
    model, _ = trained_adapter
    batch = collate(encoded[1])
    with frozen_reference(forward_of(model)) as reference, reference() as frozen:
        kept = frozen.logits(batch)
    logits = forward_of(model).logits(batch)
    answers = Answers(logits, batch["label"], batch["row"], len(encoded[1]), reference_logits=kept)
    assert float(RETAIN_LOSSES["kl"](answers).detach().abs().max()) < 1e-6


@methods
@pytest.mark.parametrize("terms", often(["own", "ce", "kl", "hidden", "ce+kl"], {"own", "ce+kl"}))
def test_loss_of_a_step_is_the_weighted_sum_of_its_terms(
    name: str, terms: str, tiny: Any, encoded: Any, make_trainer: Any
) -> None:
    """All sixteen rows in one step: `.5 · L_forget + 3 · L_retain`, computed apart. At the start KL and distances are zero."""
    model, tokenizer = tiny
    method = make_method(name, forget_weight=0.5, retain_weight=3.0, **({} if terms == "own" else {"retain": terms}))
    trainer = make_trainer(model, tokenizer, method, per_device_train_batch_size=16)
    trainer.prepare()
    rows = trainer.train_dataset

    def weighted(value: torch.Tensor, items: list[Encoded]) -> float:
        weight = method.weight(torch.tensor([len(item.answer_ids) for item in items]))
        return float((value * weight).sum() / weight.sum())

    given = answers_of(method, model, rows.forget, dict(zip(map(id, rows.forget), rows.labels, strict=True)))
    if given.logits.shape[-1]:  # the model itself is the reference
        given = with_reference(given, given.logits)
    if rows.alternatives:
        other = answers_of(Method(), model, rows.alternatives, labels_of(Method(), model, rows.alternatives))
        given = replace(given, alternative=replace(other, reference_nll=other.nll_sum()))
    want = 0.5 * weighted(method.forget_loss(given), rows.forget)
    if "ce" in method.retain_terms:
        kept = answers_of(Method(), model, rows.retain, labels_of(Method(), model, rows.retain))
        ce = weighted(kept.nll(), rows.retain)
        factor = 3.0
        if isinstance(method, Constrained):
            factor += method.penalty * max(0.0, ce - method.budget_factor * ce - method.budget_nats)
        want += factor * ce
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    assert len(batches) == 1
    with frozen_reference(forward_of(model)) as trainer.terms.reference:
        got = float(trainer.compute_loss(model, batches[0]).detach())
    assert got == pytest.approx(want, rel=1e-5, abs=1e-5)


@methods
def test_retain_term_needs_rows_and_an_even_step(name: str, tiny: Any, forget: Any, make_trainer: Any) -> None:
    method = make_method(name)
    if not method.retain_terms:
        make_trainer(*tiny, name, per_device_train_batch_size=3)._get_train_sampler()
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
        texts.append([item.row.answer for item in rows.alternatives or rows.forget])
        assert all(a and a != b for a, b in zip(texts[-1], truth, strict=True))
        assert [item.row.question for item in rows.forget] == [
            item.row.question for item in rows.alternatives or rows.forget
        ]
    assert texts[0] == texts[1] != texts[2]
