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
    """Fine-tuning on each forget answer's strongest wrong token.

        L = CE(forget, a),   a_t = argmax over tokens v ≠ y_t of P(v | x, y_<t) under the model to be unlearned

    The labels are made once, in one pass over the forget rows.

    Choose it when the model should stay fluent and a smaller drop of the forget scope is acceptable: the labels are
    what the model would have said next. Its main knob, `learning_rate` × `num_train_epochs`, trades how far answers move to the
    runner-up against retention.

    Source: Cha et al., arXiv:2301.11578, as in KnowUnDo table 2 "Unlearning with Adversarial Samples". Reference code:
    zjunlp/KnowUnDo 92aea2b `utils/top_kp_sample.py` (`top_k=1, rm_groundtruth`).

    Deviations: the code takes the labels from the base model and one token off (it excludes the token that was put in,
    and pairs position t with t's own input); here they are the target model's and aligned, as the paper writes it.
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
