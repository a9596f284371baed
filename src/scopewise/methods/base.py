"""The contract of a method, and the retain terms that combine with any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scopewise import registry
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.ops import Reduction, sequence_mean, token_kl, token_log_probs


@dataclass(frozen=True)
class Answers:
    """What a loss sees of a batch: logits at answer positions, and nothing of prompts or padding.

    Attributes:
        logits: Of the model being trained, in the model's dtype.
        label: The token wanted at each position: the true answer, or what `Method.relabel` put there.
        row: The sequence each token belongs to.
        batch: Number of sequences.
    """

    logits: Float[Tensor, "tokens vocab"]
    label: Int[Tensor, "tokens"]
    row: Int[Tensor, "tokens"]
    batch: int

    def nll(self) -> Float[Tensor, "batch"]:
        """Return each answer's mean negative log-likelihood, in nats per token (the CE of the paper)."""
        return self.mean(-token_log_probs(self.logits, self.label))

    def mean(self, value: Float[Tensor, "tokens"]) -> Float[Tensor, "batch"]:
        """Return the mean of a token quantity over each answer."""
        return sequence_mean(value, self.row, self.batch)


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of the methods: hyper-parameters as fields, and `forget_loss`.

    The loss of a step is `forget_weight · L_forget + retain_weight · L_retain`, where each L is the mean over the
    step's sequences (all micro-batches and processes together) of the per-sequence values, as `reduction` says.

    Attributes:
        forget_weight: Factor of the forget term.
        retain_weight: Factor of the retain term.
        retain: Retain term: `none`, `ce` (descent on the answers) or `kl` (KL to the reference, Σ over the vocabulary).
        retain_data: What the retain term is over: `retain` (in-distribution) or `general` (out-of-distribution text).
    """

    forget_weight: float = 1.0
    retain_weight: float = 1.0
    retain: Literal["none", "ce", "kl"] = "none"
    retain_data: Literal["retain", "general"] = "retain"

    localizer: ClassVar[str] = "all"
    """Localizer used where the run names none."""
    reduction: ClassVar[Reduction] = Reduction.SEQUENCE_MEAN

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the forget term of each sequence, to be minimised. It must not mix sequences."""
        raise NotImplementedError

    def relabel(self, items: Sequence[Encoded], model: nn.Module, vocab_size: int, seed: int) -> list[tuple[int, ...]]:
        """Return the labels of each forget answer, one per answer token. Called once, before the first step.

        Args:
            items: The forget rows, tokenised.
            model: The model to be unlearned, as it is before the first step.
            vocab_size: Size of the tokenizer's vocabulary.
            seed: Of anything drawn at random.
        """
        return [item.answer_ids for item in items]


RetainLoss = Callable[[Answers, Float[Tensor, "tokens vocab"] | None], Float[Tensor, "batch"]]


def _ce(answers: Answers, reference: Float[Tensor, "tokens vocab"] | None) -> Float[Tensor, "batch"]:
    return answers.nll()


def _kl(answers: Answers, reference: Float[Tensor, "tokens vocab"] | None) -> Float[Tensor, "batch"]:
    assert reference is not None
    return answers.mean(token_kl(reference, answers.logits))


RETAIN_LOSSES: Mapping[str, RetainLoss] = {"ce": _ce, "kl": _kl}
"""Retain terms: per-sequence value from the answers and, for `kl`, the reference's logits at the same positions."""


def make_method(name: str, **arguments: Any) -> Method:
    """Build a method by name.

    Raises:
        ConfigError: unknown method or hyper-parameter (with the nearest name), or a value that does not fit.
    """
    cls = registry.lookup("methods", name)
    known = {f.name: f for f in fields(cls)}
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(
                f"unlearn.method_args: unknown {key!r}; {registry.canonical('methods', name)} takes "
                f"{', '.join(known)}.{registry.nearest(key, known)}"
            )
        if isinstance(known[key].default, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"unlearn.method_args.{key}: {value!r}; must be a number")
        choices = {"retain": ("none", *RETAIN_LOSSES), "retain_data": ("retain", "general")}.get(key)
        if choices and value not in choices:
            raise ConfigError(f"unlearn.method_args.{key}: {value!r}; one of {', '.join(choices)}")
    method: Method = cls(**arguments)
    return method


def seeded(seed: int) -> torch.Generator:
    """Return a CPU generator: what is drawn from it is the same on every device."""
    return torch.Generator().manual_seed(seed)
