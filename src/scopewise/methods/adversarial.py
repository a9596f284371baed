"""Unlearning with adversarial samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.data.batch import collate, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, LossInput, Method
from scopewise.models.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Adversarial(Method):
    """Fine-tuning on the most likely wrong token at each position of the forget answers.

        L = CE(forget, a),   a_t = argmax over tokens v ≠ y_t of P(v | x, y_<t) under the model to be unlearned

    The labels are computed once, in one pass over the forget rows.

    Choose it if the model should stay fluent and weaker forgetting is acceptable: the labels are tokens that the model
    finds likely anyway. The main knob is `learning_rate` × `num_train_epochs`: more training moves the answers further
    to the second choice, and costs retention.

    Source: Cha et al., arXiv:2301.11578, as in KnowUnDo table 2 "Unlearning with Adversarial Samples". Reference code:
    zjunlp/KnowUnDo 92aea2b `utils/top_kp_sample.py` (`top_k=1, rm_groundtruth`).

    Deviations: the code takes the labels from the base model and is off by one token: it pairs each prediction with the
    input token at that position instead of the next token, and excludes that input token. Here the labels are from the
    target model and aligned, as in the paper.
    """

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE to its adversarial labels, in nats per token."""
        return answers.nll()

    def relabel(self, items: Sequence[Encoded], engine: Engine, seed: int) -> list[tuple[int, ...]]:
        """Return the arg-max token other than the true one, per answer token, from one pass over the forget rows."""
        labels: dict[int, tuple[int, ...]] = {}
        with engine.forward.evaluating():
            for indices in length_batches([len(item) for item in items], engine.max_tokens):
                batch = to_device(collate([items[i] for i in indices]), engine.forward.device)
                logits = engine.forward.logits(batch).float()
                logits.scatter_(-1, batch["label"].unsqueeze(-1), float("-inf"))
                wrong = logits.argmax(-1)
                for position, i in enumerate(indices):
                    labels[i] = tuple(wrong[batch["row"] == position].tolist())
        return [labels[i] for i in range(len(items))]
