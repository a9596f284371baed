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
    """Input features of a layer that are more active on forget answers than on retain answers.

        S of every weight in column j = mean_forget |x_j| / (mean_retain |x_j| + ε)

    x is the layer's input at the answer tokens, and ε a thousandth of the layer's mean |x| on the retain scope. With
    `unit: column`, a column of `down_proj` is an MLP neuron.

    Choose it if gradients are too expensive: it needs one forward pass over the rows of each scope.

    Source: selective pruning, Pochinkov & Schoots, arXiv:2403.01267 (`abs`). Reference code: nickypro/taker 1f5a5b4
    `src/taker/scoring.py`.

    Deviations: it chooses what may be trained, not what is set to zero; every linear layer (there `down_proj` and
    `o_proj`); answer tokens (there all tokens of a text); relative ε (there 1e-3 and 1e-4). In a mixture of experts,
    tokens that are not routed to an expert count as 0 for it. This also holds if the library stores a layer's experts
    in one tensor: each expert gets the ratio of its own inputs. In an adapter on it, the expert's rows of A get the
    ratio of these inputs, and its columns of B the ratio of A x. ε is then a thousandth of the mean over all experts of
    the layer. Such models need two forward passes per row, one over prompt and answer and one over the prompt alone.
    Models whose expert computation cannot be traced are refused.
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
