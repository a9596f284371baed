"""Our side of the comparisons: rows as ours takes them, one step of the trainer, and what counts as equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import VOCAB, Pair, build_model, build_tokenizer, digest, padded, set_adapter
from torch import Tensor, nn

from engines import forward_of
from scopewise.data.prompt import Encoded
from scopewise.data.rows import Row
from scopewise.methods.base import Constrained, Method
from scopewise.models.reference import frozen_reference
from scopewise.ops import token_kl
from scopewise.region import parameter_name
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

TOLERANCE = 1e-5


def items(pairs: Sequence[Pair], scope: str) -> list[Encoded]:
    """Return the pairs as tokenised rows."""
    return [Encoded(Row(f"{scope} question", "a", scope, origin=f"{scope} {i}"), *pair) for i, pair in enumerate(pairs)]


def close(value: float, factor: float = 1.0) -> Any:
    """Return what `factor` times their value has to be equal to."""
    return pytest.approx(factor * value, rel=TOLERANCE, abs=TOLERANCE)


def assert_same_gradients(
    ours: Mapping[str, Tensor], theirs: Mapping[str, list[float]], factor: float = 1.0, matrices: int = 16
) -> None:
    """Norm and two projections of every matrix agree, to 1e-5 of the norm."""
    got = {parameter_name(name): numbers for name, numbers in digest(ours).items()}
    expected = {parameter_name(name): [factor * x for x in numbers] for name, numbers in theirs.items()}
    assert got.keys() == expected.keys()
    assert len(got) == matrices
    for name, numbers in expected.items():
        assert abs(numbers[0]) > 1e-4, name  # a gradient that is nearly zero would prove nothing
        assert got[name][0] == pytest.approx(abs(numbers[0]), rel=TOLERANCE), name
        assert got[name][1:] == pytest.approx(numbers[1:], abs=TOLERANCE * abs(numbers[0])), name


def adapter_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of the adapter, by full parameter name."""
    return {n: p.grad for n, p in model.named_parameters() if "lora_" in n and p.grad is not None}


def one_step(
    folder: Path,
    method: str | Method,
    forget: Sequence[Pair],
    kept: Sequence[Pair] = (),
    phase: float = 0.0,
    alternatives: Sequence[Pair] = (),
    vocab: int = VOCAB,
    refused: Sequence[Pair] = (),
    prepared: bool = False,
    subjects: Sequence[Sequence[tuple[int, int]]] = (),
    **arguments: Any,
) -> tuple[float, dict[str, Tensor], UnlearningTrainer]:
    """Return loss and gradients of one optimiser step over all given rows, and the trainer that computed them.

    Args:
        folder: An output folder for the trainer.
        method: Name or method.
        forget: Rows to forget.
        kept: Rows to keep.
        phase: The adapter's state when the loss is taken; reference and budget are of state 0.
        alternatives: Other answers to the forget rows.
        vocab: Size of the model's vocabulary.
        refused: Refusals to the questions of the rows to keep.
        prepared: Whether the method's labels are made.
        subjects: Where the subject of each row to forget stands, from and to.
        **arguments: The method's.
    """
    args = UnlearningConfig(output_dir=str(folder), use_cpu=True, disable_tqdm=True, method_args=arguments)
    model = build_model(vocab=vocab)
    trainer = UnlearningTrainer(
        model,
        method,
        args,
        forget_dataset=items(forget, "forget"),
        retain_dataset=items(kept, "retain") if kept else None,
        processing_class=build_tokenizer(),
        region="all",
    )
    rows: Any = trainer.train_dataset
    rows.preferred = items(alternatives, "forget")
    rows.retain_preferred = items(refused, "retain")
    rows.subject = [tuple(i for span in spans for i in range(*span)) for spans in subjects]
    if prepared or "reference_nll" in trainer.method.needs or isinstance(trainer.method, Constrained):
        trainer.prepare()
    batch = trainer.data_collator(list(range(len(forget) + len(kept))))
    batches, _ = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    with (
        frozen_reference(forward_of(model))
        if trainer.method.needs_reference
        else nullcontext() as trainer.loss.reference
    ):
        set_adapter(model, phase)
        loss = trainer.compute_loss(model, batches[0])
        loss.backward()
    return loss.item(), adapter_gradients(model), trainer


def logits_of(phase: float, inputs: Mapping[str, Tensor], vocab: int = VOCAB) -> Tensor:
    """Return the logits of every position of a padded batch, of the model in that state."""
    with torch.no_grad():
        return build_model(phase, vocab)(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits


def kl_of_positions(pairs: tuple[Pair, ...]) -> tuple[Tensor, Tensor]:
    """Return KL(state 0 ‖ state 1) at every position of the padded batch, and which of them predict an answer token."""
    inputs = padded(pairs)
    reference, logits = (logits_of(phase, inputs).flatten(0, 1) for phase in (0.0, 1.0))
    kl = token_kl(reference, logits).reshape(inputs["labels"].shape)
    return kl, (inputs["labels"] != -100).roll(-1, dims=1)
