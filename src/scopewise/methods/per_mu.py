"""Self-distillation from the model whose view of the subject is disturbed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from scopewise.methods.base import Answers, LossInput, Method
from scopewise.ops import Reduction, at_least_float32, token_kl


@dataclass(frozen=True, kw_only=True)
class PerMU(Method):
    """Train the forget answers towards the model's own logits with noise on the subject, minus its clean ones.

        L = mean_t KL(q_t ‖ P(· | x, y_<t)) + CE(retain),   q = softmax(z_noisy - C z)
        z_noisy: logits with noise · N(0, 1) added to the embeddings of the subject's tokens

    Both logits are those of the model in training, and the target has no gradient. Every token of the subject is
    disturbed, in question and answer; q is softmax(z) where the token to be predicted is itself of the subject. The
    subject is the row's `instance` if the question names it, else the longest name in the question, else the whole
    question. A row without a question has none: if a run has only such rows it is refused, otherwise they are counted in
    a warning.

    Choose it if paraphrases and implied questions must be forgotten too: all tokens of the answer become less likely, not
    only the true ones. Main knobs: `noise`, and `clean_weight`, which suppresses what the model still says.

    Source: Wang et al., arXiv:2502.19982. Reference code: MaybeLizzy/UGBench a7ef864 `dataloader.py`, `data_module.py`,
    `modeling_llama.py`.

    Deviations: the code also trains the position after the answer, ours answer positions only. The code adds the noise
    after the first block, where the tokens behind the subject have already read it; `disturbed: first_block` is that. It
    refuses rows whose subject is not found.

    Attributes:
        clean_weight: C. Default: the code's `forget.yaml`.
        noise: Standard deviation of the noise, which is the same for all rows and steps; its effect depends on the size of
            the embeddings. Default: the code's `forget.yaml`.
        disturbed: Where the noise is added: `embeddings`, or after the `first_block`. Default: the paper.
        retain: Default: the code.
    """

    clean_weight: Annotated[float, Ge(0)] = 0.1
    noise: Annotated[float, Gt(0)] = 0.4
    disturbed: Literal["embeddings", "first_block"] = "embeddings"
    retain: str = "ce"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"logits", "perturbed_logits"})
    stops_gradient: ClassVar[bool] = True
    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"clean_weight": (0.0125, 0.8), "noise": (0.05, 3.2)}

    def perturbation(self, count: int, width: int) -> Float[Tensor, "count width"]:
        """Return the noise for a subject of `count` tokens: the same draws for every row, as in the code."""
        return torch.from_numpy(self.noise * np.random.RandomState(1).randn(count, width))

    @property
    def perturbed_layer(self) -> int | None:
        """Return None for the embeddings, or the first block."""
        return 0 if self.disturbed == "first_block" else None

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean KL from the target, in nats per token."""
        assert answers.perturbed_logits is not None
        assert answers.of_subject is not None
        clean = at_least_float32(answers.logits.detach())
        target = at_least_float32(answers.perturbed_logits) - self.clean_weight * clean
        target = torch.where(answers.of_subject.unsqueeze(-1), clean, target)
        return answers.mean(token_kl(target, answers.logits))
