"""Preference optimization, towards refusals or towards plausible wrong answers: presets of one loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from scopewise.methods.base import Answers, LossInput, Preference


@dataclass(frozen=True, kw_only=True)
class PairedPreference(Preference):
    """Base of preference optimization; its presets differ in where the preferred answers come from.

    Attributes:
        beta: β, per nat. Small drives the two answers further apart. Default: each preset's source.
        retain: Default: each preset's source.
    """

    beta: float = 0.1
    retain: str = "ce"

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll", "reference_nll", "preferred"})
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"beta": (0.01, 1.0)}

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each pair's loss: (2/β) log 2 at the start."""
        assert answers.preferred is not None
        margin = answers.preferred.log_ratio() - answers.log_ratio()
        return -2 / self.beta * logsigmoid(self.beta * margin)


@dataclass(frozen=True, kw_only=True)
class DPO(PairedPreference):
    """Direct preference optimization: prefer "I do not know" over the forget answer.

        L = -(2/β) log σ(β [log P(w|x)/P_ref(w|x) - log P(y|x)/P_ref(y|x)]) + CE(retain), w the refusal, y the answer

    Choose it if the model should refuse in words. The main knob is `beta`: small drives refusal and answer further
    apart and changes the model more. The risk is that it also refuses retain questions.

    Source: Rafailov et al., arXiv:2305.18290; with refusals: Maini et al., arXiv:2401.06121, in the scaling of NPO
    (2/β). Reference code: locuslab/open-unlearning d3d7cf9 `trainer/utils.py::compute_dpo_loss` with both inputs; its
    weights are 1 too.

    Deviations: a row has the same refusal in all epochs (there a new one is drawn each time), so both references are
    computed only once. The retain CE is a mean over rows, as for `npo`.

    Attributes:
        beta: Default: OpenUnlearning's `DPO.yaml`.
        alternative: Default: the refusals of Maini et al.; the sentences are ours.
        retain: Default: OpenUnlearning's `DPO.yaml`.
    """

    alternative: Literal["row", "refusal", "generated"] = "refusal"


@dataclass(frozen=True, kw_only=True)
class AltPO(PairedPreference):
    """Alternate preference optimization: prefer a plausible wrong answer that the model wrote itself.

        L = -(2/β) log σ(β [log P(w|x)/P_ref(w|x) - log P(y|x)/P_ref(y|x)]) + CE(retain)

    The loss is that of `dpo`: y is the forget answer, w another answer sampled from the model before unlearning.

    Choose it if fluent, plausible, wrong answers are acceptable. The main knob is `beta`, as in `dpo`.

    Source: Mekala et al., arXiv:2409.13474. Reference code: molereddy/Alternate-Preference-Optimization c9b78bd
    (`subdpo`), whose retain weight is 1 too.

    Deviations: one alternative per row (there five, each as its own row). It is sampled from the question alone; if it
    repeats the true answer, it is sampled again at a higher temperature (the authors instruct a chat model to change
    the facts, and do not check the result). The retain CE is a mean over rows, as for `npo`.

    Attributes:
        beta: Default: the authors' `subdpo`.
        alternative: Default: the paper.
        retain: Default: the authors' `subdpo`.
    """

    alternative: Literal["row", "refusal", "generated"] = "generated"
