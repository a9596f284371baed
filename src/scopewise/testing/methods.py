"""Properties of every method.

By construction (`Answers`), a loss sees neither prompts nor padding. The tests check that it does not mix sequences, that
training with it does not depend on how rows are batched, and that only the region is updated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, Method
from scopewise.models.abilities import forward_of
from scopewise.region import Entry, Mask, Region, module_of, parameter_name
from scopewise.testing.world import (
    NotApplicableError,
    Property,
    World,
    alike,
    check,
    furthest,
    parameters_of,
)

Labels = Mapping[int, tuple[int, ...]]
"""The labels of each row, by the row's identity."""


def labels_of(method: Method, items: Sequence[Encoded], world: World) -> Labels:
    """Return the labels of each row, as `relabel` computes them once before the first step."""
    return dict(zip(map(id, items), method.relabel(items, world.engine(), 0), strict=True))


def answers_of(method: Method, model: Any, items: Sequence[Encoded], labels: Labels, pad: int = 0) -> Answers:
    """Return the inputs of the loss, with a made-up reference in which sequences do not affect each other."""
    hidden = "hidden" in method.needs
    batch = collate(items, [labels[id(item)] for item in items], pad_id=pad, last=hidden)
    with torch.no_grad():
        layer = method.hidden_layer(2) if hidden else None
        logits, states = forward_of(model).outputs(batch, logits=not hidden, layer=layer)
    given = Answers(
        torch.empty(len(batch["label"]), 0) if logits is None else logits,
        batch["label"],
        batch["row"],
        len(items),
        hidden=states,
        statistics=None if states is None else torch.eye(states.shape[-1])[:2],
    )
    if logits is None:
        return given
    return with_perturbed(with_reference(given, logits.roll(1, -1)), logits.roll(2, -1))


def with_perturbed(given: Answers, perturbed: Tensor) -> Answers:
    """Return the answers with such perturbed logits, and no token of the subject in them."""
    return replace(given, perturbed_logits=perturbed, of_subject=torch.zeros(len(perturbed), dtype=torch.bool))


def with_reference(given: Answers, reference: Tensor) -> Answers:
    """Return the answers with a reference that gives `reference`, and with other answers of the same length."""
    own = replace(given, logits=reference, reference_logits=reference)
    other = replace(own, label=(given.label + 1) % reference.shape[-1])
    preferred = replace(other, logits=given.logits, reference_nll=other.nll_sum().detach())
    return replace(given, reference_logits=reference, reference_nll=own.nll_sum().detach(), preferred=preferred)


def random_answers(seed: int = 0) -> Answers:
    """Return two answers of two and three tokens, over seven tokens, in float64; states of width 7 are the logits' own."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    label, row = torch.randint(7, (5,), generator=generator), torch.tensor([0, 0, 1, 1, 1])
    reference = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = Answers(logits, label, row, 2, hidden=logits, statistics=torch.eye(7, dtype=torch.float64)[:2])
    return with_perturbed(with_reference(given, reference), reference.roll(1, -1))


def moved(given: Answers, logits: Tensor) -> Answers:
    """Return the answers with other logits (and states)."""
    assert given.preferred is not None
    preferred = replace(given.preferred, logits=logits.roll(1, 0) if len(logits) else logits)
    return replace(given, logits=logits, hidden=logits, preferred=replace(preferred, logits=logits))


def _of_sequences(method: Method) -> None:
    """Raise NotApplicableError where the loss is of a whole micro-batch, and not of each sequence."""
    if method.whole_batch:
        raise NotApplicableError("its loss is of a whole micro-batch")


def _losses(method: Method, model: Any, items: Sequence[Encoded], labels: Labels, pad: int = 0) -> list[float]:
    _of_sequences(method)
    return method.forget_loss(answers_of(method, model, items, labels, pad)).tolist()


def padding_and_order(method: Method, world: World) -> None:
    """The loss of a row is the same alone, in a batch with all rows (padded to the longest), and in reverse order."""
    model, items = world.model(), world.items[0]
    labels = labels_of(method, items, world)
    alone = [_losses(method, model, [item], labels)[0] for item in items]
    for order in (1, -1):
        together = _losses(method, model, items[::order], labels)[::order]
        check(alike(together, alone), f"{alone} alone, {together} together")
    check(len({float(f"{x:.4g}") for x in alone}) > 1, f"every row has the loss {alone[0]:.4g}")


def padding_id(method: Method, world: World) -> None:
    """The loss does not depend on the id that rows are padded with."""
    model, items = world.model(), world.items[0]
    labels = labels_of(method, items, world)
    found = [_losses(method, model, items, labels, pad) for pad in (0, 7)]
    check(found[0] == found[1], f"{found[0]} with id 0, {found[1]} with id 7")


def labels_fit(method: Method, world: World) -> None:
    """`relabel` gives one token id of the vocabulary per answer token, and the same ones for the same seed."""
    items = world.items[0]
    first, again = (method.relabel(items, world.engine(), 0) for _ in range(2))
    lengths = [len(item.answer_ids) for item in items]
    check([len(x) for x in first] == lengths, f"{[len(x) for x in first]} labels for answers of {lengths} tokens")
    check(all(0 <= token < 300 for x in first for token in x), "a label that is no token of the model")
    check(first == again, "other labels for the same seed")


def finite_differences(method: Method, world: World) -> None:
    """The gradient of the loss agrees with finite differences."""
    _of_sequences(method)
    if method.stops_gradient:
        raise NotApplicableError("the loss has a stop-gradient")
    given = random_answers()

    def loss(logits: Tensor) -> Tensor:
        return method.forget_loss(moved(given, logits))

    try:
        torch.autograd.gradcheck(loss, (given.logits.clone().requires_grad_(True),))
    except RuntimeError as error:  # torch names the entries that differ
        check(False, " ".join(str(error).split())[:200])


def sequences_apart(method: Method, world: World) -> None:
    """The loss of the first row has no gradient on the tokens of the second."""
    _of_sequences(method)
    given = random_answers()
    logits = given.logits.clone().requires_grad_(True)
    method.forget_loss(moved(given, logits))[0].backward()
    gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
    check(bool(gradient[:2].any()), "no gradient on its own tokens")
    check(not bool(gradient[2:].any()), "a gradient on the tokens of another row")


def micro_batches(method: Method, world: World, adapter: bool) -> None:
    """A step on eight rows gives the same parameters with one micro-batch and with eight."""
    _of_sequences(method)
    method = replace(method, retain_weight=2.0)
    after, start = [], {}
    for size in (8, 1):
        trainer = world.trainer(
            world.model(adapter),
            method,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
        )
        start = parameters_of(trainer.model)
        trainer.train()
        after.append(parameters_of(trainer.model))
    step, difference = furthest(after[0], start), furthest(after[0], after[1])
    check(step > 0, "the step changes no parameter")
    check(difference < 1e-3 * step, f"parameters differ by {difference:.3g} after a step of {step:.3g}")


def region_of(model: Any, chosen: Callable[[str], bool]) -> Region:
    """Return a region of the matrices whose names `chosen` accepts."""
    present = {parameter_name(n): p for n, p in model.named_parameters()}
    names = [n for n in present if "lora_" in n or "proj" in n]
    return Region("test", {}, tuple(Entry(n, present[n].numel(), chosen(n), module_of(n)) for n in names))


_ADAMW = {"optim": "adamw_torch", "weight_decay": 0.1, "learning_rate": 1e-3}
"""Weight decay and momentum would move a parameter that has no gradient but is in the optimiser."""


def only_the_region(method: Method, world: World, adapter: bool) -> None:
    """Training changes the parameters of the region, and no others."""
    if adapter and method.change_factor != 1:
        raise NotApplicableError("its result is an adapter of another shape")
    model = world.model(adapter, trained=True)
    region = region_of(model, lambda n: "layers.0.self_attn.q_proj" in n and ("lora_" in n) == adapter)
    start = parameters_of(model)
    trainer = world.trainer(model, method, region=region, **_ADAMW)
    trainer.train()
    after = parameters_of(trainer.model)
    changed = {n for n in start if not torch.equal(start[n], after[n])}
    check(changed == region.names, f"moved: {sorted(changed)[:4]}; chosen: {sorted(region.names)}")


def only_chosen_weights(method: Method, world: World, adapter: bool) -> None:
    """If a part of a matrix is in the region, two steps of AdamW with decay and momentum change no other weight of it."""
    model = world.model(adapter)
    whole = region_of(model, lambda n: "layers.0.self_attn.v_proj" in n and ("lora_" in n) == adapter)
    shapes = {parameter_name(n): tuple(p.shape) for n, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(shapes[n], generator=generator) < 0.3 for n in sorted(whole.names, reverse=True)}
    entries = tuple(replace(e, selected=int(drawn[e.name].sum()) if e.chosen else None) for e in whole.entries)
    region = Region("test", {}, entries, masks={n: Mask.pack(mask.numpy()) for n, mask in drawn.items()})
    start = parameters_of(model)
    trainer = world.trainer(model, method, region=region, max_steps=2, **_ADAMW)
    trainer.train()
    after = parameters_of(trainer.model)
    moving = {n for n in start if not torch.equal(start[n], after[n])}
    check(moving == region.names, f"moved: {sorted(moving)[:4]}; chosen: {sorted(region.names)}")
    for n in region.names:
        changed = start[n] != after[n]
        check(not bool((changed & ~drawn[n]).any()), f"weights of {n} outside of the mask moved")
        share = int(changed.sum()) / int(drawn[n].sum())
        check(share > 0.9, f"{share:.0%} of the chosen weights of {n} moved")


def reference_stands(method: Method, world: World) -> None:
    """Training changes the model's logits, but not those of the reference."""
    _of_sequences(method)
    method = replace(method, retain="kl")
    batch = collate(world.items[1])
    trainer = world.trainer(world.model(adapter=True), method, max_steps=2)
    with torch.no_grad(), trainer.forward.kernels.training(trainer.model):  # as in a training
        before = forward_of(trainer.model).logits(batch)
    seen: list[Tensor] = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            assert trainer.loss.reference is not None
            with trainer.loss.reference() as frozen:
                seen.append(frozen.logits(batch))

    trainer.add_callback(Look())
    trainer.train()
    with torch.no_grad():
        after = forward_of(trainer.model.eval()).logits(batch)
    check(len(seen) == 2, f"{len(seen)} steps of 2")
    check(all(torch.equal(reference, before) for reference in seen), "the reference moved")
    check(not torch.equal(after, before), "the model did not move")


PROPERTIES: Mapping[str, Property] = {
    "padding, row order and batch mates change nothing": padding_and_order,
    "the padding id changes nothing": padding_id,
    "labels fit, and depend on the seed alone": labels_fit,
    "gradients by finite differences": finite_differences,
    "sequences are not mixed": sequences_apart,
    "the reference does not move": reference_stands,
}
"""Name → property of a method."""

TRAINED: Mapping[str, Property] = {
    "micro-batches change nothing": micro_batches,
    "only the region moves": only_the_region,
    "only chosen weights of a matrix move": only_chosen_weights,
}
"""Name → property of a method that is tested with LoRA and with all parameters."""
