"""White-box attacks that change the weights: pruning, noise, and interpolation with the target."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Work, score_answers
from scopewise.models.architecture import decoder_blocks
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Pruning(Attack):
    """Set the smallest weights of each matrix to zero, which removes an update that consists of many small changes.

    Signal: probability of the answer with each of `fractions` of each matrix pruned by magnitude.

    Source: magnitude pruning as in Łucki et al., arXiv:2409.18025 (ethz-spylab/unlearning-vs-safety 75dade5), by each
    model's own magnitudes.

    Attributes:
        fractions: Shares (0-1) of each matrix that are set to zero. Default: ours.
    """

    fractions: tuple[Annotated[float, Interval(gt=0, lt=1)], ...] = (0.1, 0.3, 0.5)

    name = "pruning"
    suite = "quick"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.fractions))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each share."""
        changes = {f"{100 * share:g}%": partial(_pruned, share) for share in self.fractions}
        return changed_weights(subject, facts, changes, "prune")


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Add small random noise to the weights, to see whether a small perturbation brings the answer back.

    Signal: probability of the answer with normal noise in proportion to each matrix's root mean square; all models get
    the same noise. It is the control of `quantization`: if noise recovers as much, the recovery is not due to the
    quantization grid.

    Source: ours.

    Attributes:
        sizes: Standard deviations of the noise, as shares of a matrix's root mean square. Default: ours.
    """

    sizes: tuple[Annotated[float, Gt(0)], ...] = (0.03, 0.1)

    name = "noise"
    suite = "full"

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.sizes))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each noise level."""
        changes = {f"{100 * size:g}%": partial(_noisy, size, facts.seed) for size in self.sizes}
        return changed_weights(subject, facts, changes, "noise")


@dataclass(frozen=True, kw_only=True)
class Merging(Attack):
    """Interpolate the weights towards the target's, to see how close the forgotten answer is.

    Signal: probability of the answer with w + α (w_target - w), with each α of `fractions`, in the linear layers of the decoder
    blocks. It is a diagnostic, not a threat: an attacker who has the target has the answers.

    Source: linear interpolation of fine-tuned models (Ilharco et al., arXiv:2212.04089).

    Attributes:
        fractions: Shares (0-1) of the target's weights, α. Default: ours.
    """

    fractions: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = (0.1, 0.25, 0.5)

    name = "merging"
    suite = "full"
    combine = "mean"
    needs_target = True

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=len(self.fractions))

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return the probability of the answers at each α."""
        weights = block_weights(target.model)
        mine = block_weights(subject.model)
        if {n: w.shape for n, w in mine.items()} != {n: w.shape for n, w in weights.items()}:
            raise InapplicableError("the target has different matrices")
        # Copy, since the subject may be the target itself, whose weights change while they are read.
        copies = {name: weight.clone() for name, weight in weights.items()}
        changes = {f"{100 * share:g}%": partial(_mixed, share, copies) for share in self.fractions}
        return changed_weights(subject, facts, changes, "merge")


def changed_weights(
    subject: Engine, facts: Facts, changes: Mapping[str, Callable[[str, Tensor], Tensor]], what: str
) -> Outcome:
    """Score the answers after each of several changes of the weights.

    Args:
        subject: Engine of the model, which is restored afterwards.
        facts: The rows.
        changes: Setting → a function of a matrix's name and its float32 values [out in] that returns the changed ones.
        what: Label of the progress bar.
    """
    signals, texts = {}, {}
    for setting, change in changes.items():
        with subject.lend() as model, torch.no_grad():
            for name, weight in block_weights(model).items():
                weight.copy_(change(name, weight.float()))
            signals[setting], texts[setting] = score_answers(subject, facts.rows, f"{what}, {setting}")
    return Outcome(facts.rows, signals, texts)


def block_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the decoder blocks' linear layers as [out in], by name, without embeddings and lm_head.

    They are views, so writing to them changes the model.
    """
    return {
        f"{i}.{name}": matrix
        for i, block in enumerate(decoder_blocks(model))
        for name, module in block.named_modules()
        if (matrix := _matrix(module)) is not None
    }


def _matrix(module: nn.Module) -> Tensor | None:
    if isinstance(module, nn.Linear):
        return module.weight.data
    # GPT-2's linear layers are Conv1D modules, whose weight is [in out].
    return module.weight.data.T if isinstance(module, Conv1D) else None


def _pruned(share: float, _: str, weight: Tensor) -> Tensor:
    count = int(share * weight.numel())
    if count == 0:
        return weight
    largest_pruned = weight.abs().flatten().kthvalue(count).values
    return weight * (weight.abs() > largest_pruned)


def _noisy(size: float, seed: int, name: str, weight: Tensor) -> Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    return weight + size * weight.square().mean().sqrt() * noise


def _mixed(share: float, other: Mapping[str, Tensor], name: str, weight: Tensor) -> Tensor:
    return weight + share * (other[name].to(weight) - weight)
