"""Ratio of activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scopewise.localizers.base import Scopes, ScoreLocalizer
from scopewise.models.engine import Engine
from scopewise.models.matrices import localizable


@dataclass(frozen=True, kw_only=True)
class ActivationRatio(ScoreLocalizer):
    """Inputs of a layer that are more active on forget answers than on retain answers.

        S of every weight in column j = mean_forget |x_j| / (mean_retain |x_j| + ε)

    x is the layer's input at the answer tokens, ε a thousandth of the layer's mean |x| on the retain scope. With `unit:
    column` a column of `down_proj` is an MLP neuron.

    Choose it when gradients are too expensive: it needs one forward pass over the rows of each scope.

    Source: selective pruning, Pochinkov & Schoots, arXiv:2403.01267 (`abs`). Reference code: nickypro/taker 1f5a5b4
    `src/taker/scoring.py`.

    Deviations: it chooses what may be trained, not what is zeroed; every linear layer (there `down_proj` and `o_proj`);
    answer tokens (there all of a text); ε relative (there 1e-3 and 1e-4). Tokens that are not sent to an expert count as
    0 for it, also where a library keeps a layer's experts in one tensor: each has the ratio of what it is given itself, and
    of an adapter's matrices on it, its rows of A that of the same inputs, its columns of B that of A x. ε is then a thousandth
    of the mean over all experts of the layer. These take two forwards of each row, one for answer and prompt and one for the
    prompt alone. A model whose experts multiply in a way that cannot be followed is refused.
    """

    name: ClassVar[str] = "activation_ratio"

    def scores(self, engine: Engine, scopes: Scopes) -> Mapping[str, Tensor]:
        """Return the ratio of each weight's input."""
        unlearn = engine.mean_activations(scopes.forget, "forget")
        keep = engine.mean_activations(scopes.retain, "retain")
        scores = {}
        for name, matrix in localizable(engine.model).items():
            ratio = unlearn[name] / (keep[name] + 1e-3 * keep[name].mean() + 1e-30)
            if ratio.shape != matrix.parameter.shape:
                ratio = ratio.unsqueeze(-3 - matrix.inputs)  # along the outputs
            scores[name] = ratio.expand(matrix.parameter.shape)
        return scores
