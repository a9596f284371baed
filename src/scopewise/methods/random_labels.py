"""Fine-tuning with random labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, LossInput, Method, seeded
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class RandomLabels(Method):
    """Fine-tuning on the forget questions with random answer tokens.

        L = CE(forget questions, labels drawn uniformly from the vocabulary)

    One label per answer token is drawn before the first step, from the run's seed.

    Choose it if you want a bounded loss: unlike ascent it has a minimum. The main knob is `learning_rate` ×
    `num_train_epochs`: more training turns the forget answers into noise more thoroughly, and costs fluency on
    everything else.

    Source: Golatkar et al., arXiv:1911.04933; KnowUnDo table 2 "Fine-tuning with Random Labels". Reference code:
    zjunlp/KnowUnDo 92aea2b `utils/llm_tokenize_with_chunk.py` (`completely_random`).

    Deviations: the code also replaces labels of the question; here only answer tokens are trained.
    """

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE to its random labels, in nats per token."""
        return answers.nll()

    def relabel(self, items: Sequence[Encoded], engine: Engine, seed: int) -> list[tuple[int, ...]]:
        """Return one uniform draw from the vocabulary per answer token."""
        generator, size = seeded(seed), engine.vocab_size
        return [tuple(torch.randint(size, (len(item.answer_ids),), generator=generator).tolist()) for item in items]
