"""Gradient ascent, alone, with the retain terms of the KnowUnDo paper, and on a region: presets of one loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method, RetainData


@dataclass(frozen=True, kw_only=True)
class Ascent(Method):
    """Base of gradient ascent on the forget answers; its presets differ in the retain term, its data, and the localizer."""

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return the mean log-likelihood of each answer in nats per token; minimising it is ascent on CE."""
        return -answers.nll()


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Ascent):
    """Gradient ascent on the forget answers, without a retain term.

        L = -CE(forget)

    Choose it as the lower bound of a comparison. The main knob is `learning_rate` × `num_train_epochs`: the loss has no
    minimum, so more training forgets more and also damages everything else more.

    Source: Jang et al., arXiv:2210.01504; KnowUnDo table 2 "Gradient Ascent". Reference code: zjunlp/KnowUnDo 92aea2b
    `methods/gradient_ascent.py`.

    Deviations: none at batch 1 per process, where both give the same number. The code averages over the tokens of a
    batch; here each answer has the same weight.
    """


@dataclass(frozen=True, kw_only=True)
class GADescent(Ascent):
    """Gradient ascent on the forget answers, gradient descent on retain answers of the same instances.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)

    Choose it first if you have retain rows of the same instances. The main knob is `retain_weight`: higher improves
    Retention Success, lower improves Unlearn Success.

    Source: Yao et al., arXiv:2310.10683 and arXiv:2402.15159; KnowUnDo table 2, GA + Descent, in-distribution, whose
    loss has no weights. Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_descent.py`.

    Deviations: the code divides both terms by the number of all rows, so at a balanced batch its gradient is half of
    ours. Adam is invariant to that factor.

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"


@dataclass(frozen=True, kw_only=True)
class GADescentGeneral(Ascent):
    """Gradient ascent on the forget answers, gradient descent on general text.

        L = -forget_weight · CE(forget) + retain_weight · CE(general text)

    Choose it if you have no retain rows of the same instances. The main knob is `retain_weight`: higher keeps fluency
    on general text, lower forgets more. It does not protect the retention scope.

    Source: as `ga_descent`; KnowUnDo table 2, GA + Descent, out-of-distribution.

    Deviations: those of `ga_descent`.

    Attributes:
        retain: Default: KnowUnDo's descent.
        retain_data: Default: KnowUnDo's out-of-distribution.
    """

    retain: str = "ce"
    retain_data: RetainData = "general"


@dataclass(frozen=True, kw_only=True)
class GAKL(Ascent):
    """Gradient ascent on the forget answers, KL to the model before unlearning on the retain answers.

        L = -forget_weight · CE(forget) + retain_weight · KL(reference ‖ model)(retain)

    Choose it if the model should keep its answers to retain questions, right or wrong, instead of being trained on them
    again. The main knob is `retain_weight`: higher stays closer to the reference, lower forgets more. Each step needs a
    second forward pass over the retain rows.

    Source: Yao et al., arXiv:2402.15159; KnowUnDo table 2, GA + KL, in-distribution, whose loss has no weights.
    Reference code: zjunlp/KnowUnDo 92aea2b `methods/ascent_plus_KLdivergence.py`.

    Deviations: the code minimises the cross-entropy to the reference, which differs from KL by a constant; it averages
    over prompt and padding too, here over answer tokens only; it adds 1e-12 inside the logarithm.

    Attributes:
        retain: Default: KnowUnDo's in-distribution KL.
    """

    retain: str = "kl"


@dataclass(frozen=True, kw_only=True)
class GAKLGeneral(Ascent):
    """Gradient ascent on the forget answers, KL to the model before unlearning on general text.

        L = -forget_weight · CE(forget) + retain_weight · KL(reference ‖ model)(general text)

    Choose it if you have no retain rows and general behaviour should not change. The main knob is `retain_weight`:
    higher stays closer to the reference on general text, lower forgets more. It does not protect the retention scope.

    Source: as `ga_kl`; KnowUnDo table 2, GA + KL, out-of-distribution.

    Deviations: those of `ga_kl`.

    Attributes:
        retain: Default: KnowUnDo's KL.
        retain_data: Default: KnowUnDo's out-of-distribution.
    """

    retain: str = "kl"
    retain_data: RetainData = "general"


@dataclass(frozen=True, kw_only=True)
class MemFlex(Ascent):
    """MemFlex: GA + descent on a region, the parameters that store the forget scope according to their gradients.

        L = -forget_weight · CE(forget) + retain_weight · CE(retain)
        updating only θ_loc = { θ_i : cos_i < µ and magnitude_i > σ }

    The region is that of the `gradient` localizer unless the run names another one, such as the controls `random` and
    `all`. `memflex@all` is the same as `ga_descent`: with the same settings both give the same model. Compare `memflex`
    with `memflex@all` to see the effect of localization, and with `memflex@random` to see whether the choice of
    parameters matters.

    Choose it if only a part of the parameters should change. Always run `memflex@random` too, which is the same loss on
    a random region of the same size. The main knob is the size of the region: a higher µ or a lower σ makes it larger,
    which gives forgetting more capacity and leaves fewer parameters unchanged. `retain_weight` works as in
    `ga_descent`.

    Source: Tian et al., arXiv:2407.01920, section 4, Eq. 8-10, whose loss has no weights. Reference code:
    zjunlp/KnowUnDo 92aea2b `run_unlearn_lora.py`, `pretrain/localization.py`.

    Deviations: those of `ga_descent` and of the `gradient` localizer. The code, but not the paper, uses the weights
    -0.4 and +2.0; here they are `method_args: {forget_weight: 0.4, retain_weight: 2.0}` (the loss contains the minus
    sign).

    Attributes:
        retain: Default: KnowUnDo's in-distribution descent.
    """

    retain: str = "ce"

    localizer: ClassVar[str] = "gradient"


@dataclass(frozen=True, kw_only=True)
class GRAIL(Ascent):
    """GA + descent with two masks: ascent skips weights that both scopes need, descent the retain scope's core.

        L = -0.4 · CE(forget) + 2 · CE(retain), each term's gradient masked by the localizer of the same name

    The gradient of the forget term is zero on weights that are among the most important of both scopes; that of the
    retain term is zero on the most important weights of the retain scope.

    Choose it if forget and retain rows share weights and whole matrices are too coarse. The main knobs are the
    localizer's two fractions. A higher `localize.localizer_args.overlap_fraction` protects more shared weights and
    slows forgetting; a higher `localize.localizer_args.core_fraction` freezes more of retention's weights in the retain
    term.

    Source: Kim et al., arXiv:2504.12681. Reference code: piso7/GRAIL 5cd74dd. The formulas are from the code, since we
    could not get the paper's equations.

    Deviations: each term's own gradient is masked, over the whole step (the code also zeroes what earlier micro-batches
    have accumulated, so its result depends on the order of rows); masked weights do not move (there Adam's momentum
    moves them); one pair of scopes; learning rate and epochs are the run's.

    Attributes:
        forget_weight: Default: the code.
        retain_weight: Default: the code.
        retain: Default: the code.
    """

    forget_weight: float = 0.4
    retain_weight: float = 2.0
    retain: str = "ce"

    localizer: ClassVar[str] = "grail"
