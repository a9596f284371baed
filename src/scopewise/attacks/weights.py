"""Changes of the weights of the linear layers in the decoder blocks, for white-box attacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from scopewise.attacks.base import Facts, Outcome, score_answers
from scopewise.models.architecture import decoder_blocks
from scopewise.models.engine import Engine


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


def _matrix(module: nn.Module) -> Tensor | None:
    if isinstance(module, nn.Linear):
        return module.weight.data
    # GPT-2's linear layers are Conv1D modules, whose weight is [in out].
    return module.weight.data.T if isinstance(module, Conv1D) else None
