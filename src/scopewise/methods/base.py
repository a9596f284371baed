"""Base classes of methods, and the retain terms that any method can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import TrainingArguments

from scopewise.data.batch import Batch
from scopewise.data.prompt import Encoded
from scopewise.models.engine import Engine
from scopewise.ops import Reduction, sequence_mean, sequence_sum, squared_distance, token_js, token_kl, token_log_probs
from scopewise.registry import split_method
from scopewise.settings import make

BatchLoss = Callable[[nn.Module, Batch, Batch], Tensor]
"""Computes the loss of a micro-batch (a scalar) from the model, the forget rows and the retain rows paired with them."""
RetainData = Literal["retain", "general", "both"]
LossInput = Literal["nll", "logits", "reference_logits", "reference_nll", "preferred", "hidden", "perturbed_logits"]


@dataclass(frozen=True)
class Answers:
    """Input of a loss: the model's outputs at answer positions, without prompts and padding.

    Attributes:
        logits: Of the model in training, in its dtype. Empty ([tokens, 0]) if the method needs hidden states, or only
            the NLL, which is then computed by chunked cross-entropy if the model allows it.
        label: The target token at each position: of the true answer, or from `Method.relabel`.
        row: The index of each token's sequence.
        batch: Number of sequences.
        reference_logits: Of the model before unlearning, if the method (or a retain term) needs them.
        reference_nll: Negative log-likelihood of each answer under the model before unlearning, in nats, summed over
            its tokens; if the method needs it.
        hidden: Hidden states after the decoder block that the method names, at the positions of the answer tokens
            themselves, not of those that predict them; if the method or a retain term needs them.
        reference_hidden: The same for the model before unlearning, for the retain term `hidden`.
        preferred: The preferred answers, sequence by sequence, if the method needs them.
        nll_of_tokens: The result of `token_nll`, if computed in chunks.
        statistics: What `Method.statistics` returned before the first step.
        perturbed_logits: Of the model in training, without a gradient, with `Method.perturbation` added to the
            embeddings of the subject's tokens, or to their states after a block; if the method needs them.
        of_subject: Whether each target token is one of the subject's; if the method needs perturbed logits.
        kl_of_tokens: KL of each token from the model before unlearning, in nats, if computed in chunks.
    """

    logits: Float[Tensor, "tokens vocab"]
    label: Int[Tensor, "tokens"]
    row: Int[Tensor, "tokens"]
    batch: int
    reference_logits: Float[Tensor, "tokens vocab"] | None = None
    reference_nll: Float[Tensor, "batch"] | None = None
    hidden: Float[Tensor, "tokens hidden"] | None = None
    reference_hidden: Float[Tensor, "tokens hidden"] | None = None
    preferred: Answers | None = None
    nll_of_tokens: Float[Tensor, "tokens"] | None = None
    kl_of_tokens: Float[Tensor, "tokens"] | None = None
    statistics: Tensor | None = None
    perturbed_logits: Float[Tensor, "tokens vocab"] | None = None
    of_subject: Bool[Tensor, "tokens"] | None = None

    def token_nll(self) -> Float[Tensor, "tokens"]:
        """Return each answer token's negative log-likelihood in nats."""
        if self.nll_of_tokens is not None:
            return self.nll_of_tokens
        return -token_log_probs(self.logits, self.label)

    def nll(self) -> Float[Tensor, "batch"]:
        """Return each answer's mean negative log-likelihood, in nats per token (the CE of the paper)."""
        return self.mean(self.token_nll())

    def nll_sum(self) -> Float[Tensor, "batch"]:
        """Return each answer's negative log-likelihood in nats, summed over its tokens."""
        return sequence_sum(self.token_nll(), self.row, self.batch)

    def log_ratio(self) -> Float[Tensor, "batch"]:
        """Return log P(answer) - log P_reference(answer) of each answer, in nats; needs `reference_nll`."""
        assert self.reference_nll is not None
        return self.reference_nll - self.nll_sum()

    def mean(self, value: Float[Tensor, "tokens"]) -> Float[Tensor, "batch"]:
        """Return the mean of a token quantity over each answer."""
        return sequence_mean(value, self.row, self.batch)


@dataclass(frozen=True)
class InnerSteps:
    """Plain SGD steps on the retain loss between two optimiser steps.

    Attributes:
        count: How many.
        learning_rate: Their learning rate; their gradient is clipped to norm 1.
    """

    count: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of methods: hyper-parameters as fields, and `forget_loss`.

    The loss of a step is `forget_weight · L_forget + retain_weight · L_retain`, where each L is the mean over the
    step's sequences (all micro-batches and processes together) of the per-sequence values, as `weight` says.

    Attributes:
        forget_weight: Factor of the forget term. Default: the KnowUnDo paper, whose losses have no weights.
        retain_weight: Factor of the retain term. Default: the KnowUnDo paper, whose losses have no weights.
        retain: Retain term: `none`, or some of `ce`, `kl`, `js`, `ap`, `hidden` joined by `+`. Default: the method's source.
        retain_data: Data of the retain term: `retain` rows (in-distribution), `general` text (out-of-distribution), or `both`
            in equal parts, with `kl` on the text. Default: the KnowUnDo paper's in-distribution.
    """

    forget_weight: float = 1.0
    retain_weight: float = 1.0
    retain: str = "none"
    retain_data: RetainData = "retain"

    localizer: ClassVar[str] = "all"
    """Default localizer."""
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyper-parameters of its own that a search tries, with (low, high) around the published value. Learning rate, steps
    and retain weight are searched for every method, so they are not named here."""
    reduction: ClassVar[Reduction] = Reduction.SEQUENCE_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"logits"})
    """The inputs in `Answers` that the forget loss reads, besides labels. With `nll` only, full logits are not kept."""
    stops_gradient: ClassVar[bool] = False
    """Whether a part of the loss is detached, so that the gradient is not that of the value."""
    trains_on: ClassVar[Literal["answer", "preferred"]] = "answer"
    """Whether the forget rows are trained with their own answers or with other answers instead."""
    whole_batch: ClassVar[bool] = False
    """Whether the loss is `batch_loss`, which runs the model itself, instead of `forget_loss` and the retain terms."""

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the forget term of each sequence, to be minimised; it must depend on that sequence only."""
        raise NotImplementedError

    def weight(self, token_counts: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Return each sequence's weight in the step's mean, from its number of answer tokens."""
        return self.reduction.weight(token_counts)

    def relabel(self, items: Sequence[Encoded], engine: Engine, seed: int) -> list[tuple[int, ...]]:
        """Return the labels of each forget answer, one per answer token. Called once, before the first step.

        Args:
            items: The forget rows, tokenised.
            engine: Of the model before unlearning.
            seed: Random seed.
        """
        return [item.answer_ids for item in items]

    def statistics(self, items: Sequence[Encoded], engine: Engine) -> Tensor | None:
        """Return what the loss reads of the model before unlearning over all forget rows. Called as `relabel`."""
        return None

    def perturbation(self, count: int, width: int) -> Float[Tensor, "count width"]:
        """Return what is added to the states of a subject of `count` tokens, if `needs` has `perturbed_logits`."""
        raise NotImplementedError

    @property
    def perturbed_layer(self) -> int | None:
        """The decoder block after which it is added, from 0; None for the embeddings."""
        return None

    def batch_loss(self, engine: Engine, args: TrainingArguments) -> BatchLoss:
        """Return the loss of a micro-batch, if `whole_batch`. Called as `relabel`, with the training arguments."""
        raise NotImplementedError

    def hidden_layer(self, layers: int) -> int | None:
        """Return the decoder block (from 0, of `layers`) whose hidden states are needed, or None."""
        return round(0.5 * (layers - 1)) if "hidden" in self.retain_terms else None

    def __post_init__(self) -> None:
        if self.retain != "none" and not set(self.retain.split("+")) <= set(RETAIN_LOSSES):
            raise ValueError(f"retain: {self.retain!r}; none, or some of {', '.join(RETAIN_LOSSES)} joined by '+'")
        if self.retain == "none" and self.retain_data == "both":
            raise ValueError(
                "retain_data: 'both'; nothing is retained with retain=none; set retain, or leave retain_data out"
            )

    @property
    def answers_from(self) -> str | None:
        """Source of the preferred answers: `row`, `refusal` or `generated`; None if not needed."""
        return None

    def dual(self, counts: Sequence[int], nll: Callable[[], Sequence[float]]) -> Dual | None:
        """Return the initial dual variable that keeps the retain loss within its budget; None for a fixed weight.

        Args:
            counts: Number of tokens of each retain answer.
            nll: Computes the NLL (nats, summed over tokens) of each retain answer under the model before unlearning.
        """
        return None

    @property
    def change_factor(self) -> float:
        """Factor for the total change of the parameters, applied after training; 1 for no scaling."""
        return 1.0

    @property
    def inner(self) -> InnerSteps | None:
        """Plain SGD steps on the retain loss before each optimiser step except the first; None for none."""
        return None

    @property
    def retain_terms(self) -> tuple[str, ...]:
        """Names of the retain terms."""
        return () if self.retain == "none" else tuple(self.retain.split("+"))

    @property
    def needs_refusals(self) -> bool:
        """Whether the retain rows are trained beside refusals of their questions."""
        return bool(READ_A_REFUSAL & set(self.retain_terms))

    @property
    def needs_reference(self) -> bool:
        """Whether a step forwards the model before unlearning."""
        return "reference_logits" in self.needs or bool(READ_THE_REFERENCE & set(self.retain_terms))


@dataclass(frozen=True, kw_only=True)
class Preference(Method):
    """Base of methods that prefer another answer over the true one, or train on it instead.

    Attributes:
        alternative: Where the preferred answers come from: `row` (the rows' own `alternative`), `refusal` (forty sentences
            shipped with the package), or `generated` (by the model itself before unlearning). Default: ours; it takes
            neither data nor a model.
    """

    alternative: Literal["row", "refusal", "generated"] = "refusal"

    @property
    def answers_from(self) -> str:
        """Source of the preferred answers."""
        return self.alternative


@dataclass(frozen=True, kw_only=True)
class Constrained(Method):
    """Base of methods that keep the retain loss within a budget, with a dual variable instead of a fixed weight.

    With r = L_retain - budget over a step's rows, the step minimises `forget_weight · L_forget + λ r + ½ penalty
    max(0, r)²`. λ starts at `retain_weight`. After each optimiser step it rises by `dual_step · r` if r > 0, and falls
    by `slack · dual_step · |r|`, but not below zero, if r < 0.

    Attributes:
        retain: Default: CE, in the papers of both methods.
        budget_factor: Budget as a multiple of the retain loss before unlearning, over all retain rows. Default: ours,
            the loss before.
        budget_nats: Added to the budget, in nats per token. Default: ours, none.
        dual_step: Step of the dual variable: λ rises by this factor times the excess over the budget. Default: ours.
        slack: Factor of the step while the loss is within the budget. Default: ours, down as fast as up.
        penalty: ρ of the quadratic term; 0 for none. Default: ours, none.
        warmup_fraction: Share (0-1) of the training during which λ keeps its initial value. Default: ours, none.
        inner_steps: Plain SGD steps on the retain loss before each optimiser step except the first. Default: ours, none.
        inner_learning_rate: Learning rate of the inner steps; their gradient is clipped to norm 1. Default: the
            appendix of BLADE.
    """

    retain: str = "ce"
    budget_factor: float = 1.0
    budget_nats: float = 0.0
    dual_step: float = 1.0
    slack: float = 1.0
    penalty: float = 0.0
    warmup_fraction: float = 0.0
    inner_steps: int = 0
    inner_learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.needs_refusals:
            raise ValueError(
                f"retain: {self.retain!r}; a budget is relative to the loss before, which is not known of ap"
            )

    @property
    def inner(self) -> InnerSteps | None:
        """Its inner steps, if there are any."""
        return InnerSteps(self.inner_steps, self.inner_learning_rate) if self.inner_steps else None

    def dual(self, counts: Sequence[int], nll: Callable[[], Sequence[float]]) -> Dual:
        """Return λ and the budget before the first step."""
        loss = 0.0  # the other retain terms are distances to the model before unlearning, so 0 at first
        if "ce" in self.retain_terms:
            tokens = torch.tensor(counts)
            weight = self.weight(tokens)
            loss = float((torch.tensor(nll()) / tokens * weight).sum() / weight.sum())
        return Dual(self.retain_weight, self.budget_factor * loss + self.budget_nats, self)


@dataclass
class Dual:
    """State of a `Constrained` method during training; a checkpoint saves λ and the budget.

    Attributes:
        multiplier: λ.
        budget: Upper limit of the retain loss, in its own unit (nats per token for CE).
        method: The method, with its step sizes, penalty and warm-up.
    """

    multiplier: float
    budget: float
    method: Constrained

    @property
    def needs_whole_loss(self) -> bool:
        """Whether `weight` depends on the retain loss of the whole step, which is then computed before the step."""
        return self.method.penalty != 0

    def weight(self, loss: float) -> float:
        """Return λ + ρ max(0, r), the factor of the retain term in the gradient of λ r + ½ρ max(0, r)²."""
        return self.multiplier + self.method.penalty * max(0.0, loss - self.budget)

    def update(self, loss: float, done_fraction: float) -> None:
        """Update λ after a step with retain loss `loss`."""
        if done_fraction < self.method.warmup_fraction:
            return
        violation = loss - self.budget
        step = self.method.dual_step * (1.0 if violation > 0 else self.method.slack)
        self.multiplier = max(0.0, self.multiplier + step * violation)

    def document(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"multiplier": self.multiplier, "budget": self.budget}


AP_BETA = 0.1
"""β of the retain term `ap`, per nat: its authors' (arXiv:2410.08109)."""

RetainLoss = Callable[[Answers], Float[Tensor, "batch"]]


def _ce(answers: Answers) -> Float[Tensor, "batch"]:
    return answers.nll()


def _kl(answers: Answers) -> Float[Tensor, "batch"]:
    if answers.kl_of_tokens is not None:
        return answers.mean(answers.kl_of_tokens)
    assert answers.reference_logits is not None
    return answers.mean(token_kl(answers.reference_logits, answers.logits))


def _js(answers: Answers) -> Float[Tensor, "batch"]:
    assert answers.reference_logits is not None
    return answers.mean(token_js(answers.reference_logits, answers.logits))


def _ap(answers: Answers) -> Float[Tensor, "batch"]:
    assert answers.preferred is not None
    return -logsigmoid(AP_BETA * (answers.preferred.nll_sum() - answers.nll_sum())) / AP_BETA


def _hidden(answers: Answers) -> Float[Tensor, "batch"]:
    assert answers.hidden is not None
    assert answers.reference_hidden is not None
    return answers.mean(squared_distance(answers.hidden, answers.reference_hidden))


RETAIN_LOSSES: Mapping[str, RetainLoss] = {"ce": _ce, "kl": _kl, "js": _js, "ap": _ap, "hidden": _hidden}
READ_A_REFUSAL = frozenset({"ap"})
"""Those that compare with a refusal of the retain question."""
READ_THE_REFERENCE = frozenset({"kl", "js", "hidden"})
"""Those that compare with the model before unlearning."""
"""Retain terms: the per-sequence value, to be minimised."""


def make_method(name: str, **arguments: Any) -> Method:
    """Build a method by name; wrappers after `+` are built by `make_wrappers`.

    Raises:
        ConfigError: unknown method or hyper-parameter (with the nearest name), or a value that does not fit.
    """
    method: Method = make("methods", split_method(name)[0], "unlearn.method_args", arguments)
    return method


def seeded(seed: int) -> torch.Generator:
    """Return a CPU generator, so that draws are the same on every device."""
    return torch.Generator().manual_seed(seed)
