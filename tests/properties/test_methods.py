"""What every method must satisfy, whichever it is: a new row of the table is tested without a new test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from scopewise.config import LoraSection
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.methods import METHODS
from scopewise.methods.base import RETAIN_LOSSES, Answers, Method, make_method
from scopewise.models.adapters import frozen_reference, lora_config, with_adapter
from scopewise.models.forward import answer_logits
from scopewise.region import Entry, Region, module_of, parameter_name

methods = pytest.mark.parametrize("name", METHODS)
LORA = lora_config(LoraSection(r=2, alpha=4, dropout=0.0))


def labels_of(method: Method, model: Any, items: list[Encoded]) -> dict[int, tuple[int, ...]]:
    """The labels of each row, by the row's identity: what `relabel` gives once, before the first step."""
    return dict(zip(map(id, items), method.relabel(items, model, 300, 0), strict=True))


def losses(method: Method, model: Any, items: list[Encoded], labels: dict[int, tuple[int, ...]]) -> list[float]:
    batch = collate(items, [labels[id(item)] for item in items])
    with torch.no_grad():
        logits = answer_logits(model, batch)
    return method.forget_loss(Answers(logits, batch["label"], batch["row"], len(items))).tolist()


@methods
def test_loss_of_a_sequence_does_not_depend_on_padding_or_batch_mates(name: str, tiny: Any, encoded: Any) -> None:
    """Alone, among all (padded to the longest), and in reverse order."""
    method, model, items = make_method(name), tiny[0], encoded[0]
    labels = labels_of(method, model, items)
    alone = [losses(method, model, [item], labels)[0] for item in items]
    assert len({len(item) for item in items}) > 1  # some are padded
    assert losses(method, model, items, labels) == pytest.approx(alone, abs=1e-5)
    assert losses(method, model, items[::-1], labels)[::-1] == pytest.approx(alone, abs=1e-5)
    assert len({round(x, 4) for x in alone}) > 1


@methods
def test_padding_id_changes_nothing(name: str, tiny: Any, encoded: Any) -> None:
    method, model, items = make_method(name), tiny[0], encoded[0]
    wanted = method.relabel(items, model, 300, 0)
    got = []
    for pad in (0, 7):
        batch = collate(items, wanted, pad_id=pad)
        with torch.no_grad():
            logits = answer_logits(model, batch)
        got.append(method.forget_loss(Answers(logits, batch["label"], batch["row"], len(items))))
    assert torch.equal(*got)


@methods
def test_labels_fit_the_answers_and_depend_on_the_seed_alone(name: str, tiny: Any, encoded: Any) -> None:
    method, model, items = make_method(name), tiny[0], encoded[0]
    first = method.relabel(items, model, 300, 0)
    assert [len(x) for x in first] == [len(item.answer_ids) for item in items]
    assert all(0 <= token < 300 for x in first for token in x)
    assert method.relabel(items, model, 300, 0) == first


def test_random_labels_are_other_ones_for_another_seed(tiny: Any, encoded: Any) -> None:
    method = make_method("random_labels")
    assert method.relabel(encoded[0], tiny[0], 300, 0) != method.relabel(encoded[0], tiny[0], 300, 1)


def test_adversarial_labels_are_the_strongest_wrong_tokens(tiny: Any, encoded: Any) -> None:
    """By a plain forward of each row alone, with the true token struck out."""
    model, items = tiny[0], encoded[0]
    for item, got in zip(items, make_method("adversarial").relabel(items, model, 300, 0), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([item.prompt_ids + item.answer_ids])).logits[0]
        for t, (true, wrong) in enumerate(zip(item.answer_ids, got, strict=True)):
            row = logits[len(item.prompt_ids) - 1 + t].clone()
            row[true] = -torch.inf
            assert wrong != true
            assert float(row[wrong]) == pytest.approx(float(row.max()), abs=1e-5)


def random_answers(seed: int = 0) -> Answers:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    return Answers(logits, torch.randint(7, (5,), generator=generator), torch.tensor([0, 0, 1, 1, 1]), 2)


@methods
def test_gradient_of_the_forget_loss_by_finite_differences(name: str) -> None:
    given = random_answers()
    method = make_method(name)

    def loss(logits: Any) -> Any:
        return method.forget_loss(Answers(logits, given.label, given.row, given.batch))

    assert torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))


@pytest.mark.parametrize("term", RETAIN_LOSSES)
def test_gradient_of_the_retain_loss_by_finite_differences(term: str) -> None:
    given = random_answers()
    reference = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(logits: Any) -> Any:
        return RETAIN_LOSSES[term](Answers(logits, given.label, given.row, given.batch), reference)

    assert torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))


@methods
def test_sequences_are_not_mixed(name: str) -> None:
    """The first value has no gradient on the second sequence's tokens (rows 2 to 4)."""
    given = random_answers()
    logits = given.logits.clone().requires_grad_(True)
    make_method(name).forget_loss(Answers(logits, given.label, given.row, given.batch))[0].backward()
    assert bool(logits.grad[:2].any())
    assert not bool(logits.grad[2:].any())


DIRECTION = {"random_labels": 1, "adversarial": 1}  # descent on the labels; every other method ascends on them


@methods
def test_direction(name: str) -> None:
    """One step against the gradient of the loss raises the CE of the labels (ascent), or lowers it (new labels)."""
    given = random_answers()
    logits = given.logits.clone().requires_grad_(True)
    make_method(name).forget_loss(Answers(logits, given.label, given.row, given.batch)).sum().backward()
    after = Answers(given.logits - 0.1 * logits.grad, given.label, given.row, given.batch)
    change = after.nll() - given.nll()
    assert bool((change < 0).all() if DIRECTION.get(name) else (change > 0).all())


@methods
def test_a_step_makes_the_forget_answers_less_likely(name: str, tiny: Any, encoded: Any, make_trainer: Any) -> None:
    """Through the whole trainer, on the true answers, for the methods that ascend; else on the new labels."""
    model, tokenizer = tiny
    method = make_method(name, retain_weight=0.0)
    truth = labels_of(Method(), model, encoded[0])
    new = labels_of(method, model, encoded[0])
    plain = make_method("random_labels")  # its forget loss is the plain CE
    labels = new if DIRECTION.get(name) else truth
    before = losses(plain, model, encoded[0], labels)
    make_trainer(model, tokenizer, method, per_device_train_batch_size=16, seed=0).train()
    change = sum(losses(plain, model.eval(), encoded[0], labels)) - sum(before)
    assert change < 0 if DIRECTION.get(name) else change > 0


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {parameter_name(n): p.detach().clone() for n, p in model.named_parameters()}


@methods
def test_eight_micro_batches_of_one_are_one_of_eight(name: str, tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """One SGD step of the same eight rows, cut two ways; dropout off, so that the parameters must agree."""
    model, tokenizer = tiny
    start = parameters(model)
    after = []
    for size in (8, 1):
        trainer = make_trainer(
            copy.deepcopy(model),
            tokenizer,
            make_method(name, retain_weight=2.0),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )
        trainer.train()
        after.append(parameters(trainer.model))
    assert max(float((after[0][n] - start[n]).abs().max()) for n in start) > 1e-3
    assert max(float((after[0][n] - after[1][n]).abs().max()) for n in start) < 1e-6


@pytest.mark.parametrize("size", [8, 2, 1])
def test_token_mean_counts_tokens_over_the_whole_step(size: int, tiny: Any, make_trainer: Any) -> None:
    """Fine-tuning's reduction: one step of eight rows is a step on the mean CE of all their answer tokens together."""
    from scopewise.finetune import Descent

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
    torch.nn.functional.cross_entropy(answer_logits(model, batch), batch["label"]).backward()
    for wanted, got in zip(model.parameters(), trainer.model.parameters(), strict=True):
        assert float((wanted - 0.1 * wanted.grad - got).detach().abs().max()) < 1e-6


def region_of(model: Any, chosen: Callable[[str], bool]) -> Region:
    names = [parameter_name(n) for n, p in model.named_parameters() if "lora_" in n or "proj" in n]
    present = {parameter_name(n): p for n, p in model.named_parameters()}
    return Region("test", {}, tuple(Entry(n, present[n].numel(), chosen(n), module_of(n)) for n in names))


@methods
@pytest.mark.parametrize("adapter", [True, False])
def test_only_the_region_moves(name: str, adapter: bool, tiny: Any, make_trainer: Callable[..., Any]) -> None:
    """With AdamW and weight decay, which would move a parameter that has no gradient but is in the optimiser."""
    model, tokenizer = tiny
    if adapter:
        model = with_adapter(model, LORA, 0)
    region = region_of(model, lambda n: "layers.1.mlp.up_proj" in n)
    before = parameters(model)
    trainer = make_trainer(model, tokenizer, name, region=region, optim="adamw_torch", weight_decay=0.1, max_steps=2)
    trainer.train()
    after = parameters(trainer.model)
    assert {n for n in before if not torch.equal(before[n], after[n])} == region.names


@methods
def test_the_reference_does_not_move(name: str, tiny: Any, encoded: Any, make_trainer: Any) -> None:
    """A fresh adapter: after training the reference still gives the target's logits, while the model does not."""
    model, tokenizer = tiny
    batch = collate(encoded[1])
    with torch.no_grad():
        target = answer_logits(model, batch)
    trainer = make_trainer(model, tokenizer, make_method(name, retain="kl"), peft_config=LORA, max_steps=2)
    seen: list[Any] = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            with trainer._reference() as frozen:
                seen.append(answer_logits(frozen, batch))

    trainer.add_callback(Look())
    trainer.train()
    with torch.no_grad():
        moved = answer_logits(trainer.model.eval(), batch)
    assert len(seen) == 2
    assert all(torch.equal(reference, target) for reference in seen)
    assert float((moved - target).abs().max()) > 1e-3


@methods
def test_kl_of_the_untouched_model_is_zero(name: str, trained_adapter: Any, encoded: Any) -> None:
    model, _ = trained_adapter
    batch = collate(encoded[1])
    with frozen_reference(model) as reference, reference() as frozen:
        kept = answer_logits(frozen, batch)
    logits = answer_logits(model, batch)
    answers = Answers(logits, batch["label"], batch["row"], len(encoded[1]))
    assert float(RETAIN_LOSSES["kl"](answers, kept).detach().abs().max()) < 1e-6


@methods
def test_loss_of_a_step_is_the_weighted_sum_of_its_terms(
    name: str, tiny: Any, encoded: Any, forget: Any, general: Any, make_trainer: Any
) -> None:
    """All sixteen rows in one step: `.5 · mean L_forget + 3 · mean L_retain`, computed apart. KL is zero at the start."""
    model, tokenizer = tiny
    method = make_method(name, forget_weight=0.5, retain_weight=3.0)
    trainer = make_trainer(model, tokenizer, method, per_device_train_batch_size=16)
    items = trainer.train_dataset
    want = 0.5 * torch.tensor(losses(method, model, items.forget, labels_of(method, model, items.forget))).mean()
    if method.retain == "ce":
        plain = make_method("random_labels")
        want += 3 * torch.tensor(losses(plain, model, items.retain, {id(i): i.answer_ids for i in items.retain})).mean()
    # `method.relabel` runs in `train`, with the seed of the arguments.
    items.labels = method.relabel(items.forget, model, 300, 0)
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    assert len(batches) == 1
    with frozen_reference(model) as trainer._reference:
        got = float(trainer.compute_loss(model, batches[0]).detach())
    full = len(batches[0]["is_forget"]) == len(items)
    assert full
    assert got == pytest.approx(float(want), abs=1e-5)


@methods
def test_retain_term_needs_rows_and_an_even_step(name: str, tiny: Any, forget: Any, make_trainer: Any) -> None:
    method = make_method(name)
    if method.retain == "none":
        make_trainer(*tiny, name, per_device_train_batch_size=3)._get_train_sampler()
        return
    with pytest.raises(ConfigError, match="must be even"):
        make_trainer(*tiny, name, per_device_train_batch_size=3).train()
