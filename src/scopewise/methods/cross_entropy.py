"""Retrain on cross-entropy: fine-tuning, other answers to the forget questions, and task vectors. Presets of one loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scopewise.data.batch import collate, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.methods.base import Answers, LossInput, Method, Preference, seeded
from scopewise.models.engine import Engine
from scopewise.ops import Reduction


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Method):
    """Base of descent; its presets differ in the answers, which `relabel` or `answers_from` may replace."""

    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean CE in nats per token."""
        return answers.nll()


@dataclass(frozen=True, kw_only=True)
class Retrain(CrossEntropy):
    """Exact unlearning: fine-tune the base model again, on the retain rows alone.

        L = CE(retain), mean over the tokens of a step, from the base model

    It is trained as the oracle is, with the settings of the `finetune` section, but with another seed: `run.seed + 1 +
    seed`. So its distance to the oracle is the noise of retraining, and no approximate method can be expected to come
    closer. It never leads a comparison, since its rivals approximate it.

    Choose it if you have the base model and all training rows, and can pay for it. It has no knob; the row of a bench says
    what it costs. It runs from a run file or the command line, which know the base; Python's `unlearn` has only the target.

    As a class it is also plain fine-tuning: its "forget" rows are the rows to learn.

    Source: Bourtoule et al., arXiv:1912.03817, section 3, whose baseline it is.

    Deviations: none.
    """

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN


@dataclass(frozen=True, kw_only=True)
class RandomLabels(CrossEntropy):
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

    def relabel(self, items: Sequence[Encoded], engine: Engine, seed: int) -> list[tuple[int, ...]]:
        """Return one uniform draw from the vocabulary per answer token."""
        generator, size = seeded(seed), engine.vocab_size
        return [tuple(torch.randint(size, (len(item.answer_ids),), generator=generator).tolist()) for item in items]


@dataclass(frozen=True, kw_only=True)
class Adversarial(CrossEntropy):
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


@dataclass(frozen=True, kw_only=True)
class ReLearn(CrossEntropy, Preference):
    """Fine-tune on other answers to the forget questions, which give nothing away; no ascent.

        L = CE(forget questions, other answers) + CE(retain) + KL(reference ‖ model)(retain)

    Choose it if answers have to stay fluent and on topic. The main knob is where the other answers come from
    (`alternative`); `retain_weight` works as in `ga_descent`.

    Source: Xu et al., arXiv:2502.11190 (L_GDF + L_GDR + L_KLR, weights 1). Reference code: zjunlp/unlearn 0800fd2.

    Deviations: no paid language model. The other answers are refusals shipped with the package, generated by the model
    itself, or those of the rows (`alternative: row`; use this for the paper's vague answers). No rephrased questions
    (the paper has four of each), and no general questions among the forget rows. The authors' pipeline also trains on
    the original question with its *memorised* answer; we leave that out. KL over answer tokens (there over prompts and
    padding too).

    Attributes:
        alternative: Default: ours, since the paper's vague answers need a language model.
        retain: Default: the paper.
    """

    alternative: Literal["row", "refusal", "generated"] = "refusal"
    retain: str = "ce+kl"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    trains_on: ClassVar[Literal["answer", "preferred"]] = "preferred"


@dataclass(frozen=True, kw_only=True)
class IDKAP(CrossEntropy, Preference):
    """Learn to refuse the forget questions, and to prefer the answer over a refusal for the retain questions.

        L = CE(refusal | x) - (1/β) mean log σ(β (NLL(refusal | x_r) - NLL(y_r | x_r))),   β = .1

    The second mean is over the retain rows, and its NLL are sums over tokens.

    Choose it if the model should say that it does not know, without refusing retain questions too. Its main knob is
    `retain_weight`.

    Source: Yuan et al., arXiv:2410.08109. Reference code: sail-sg/closer-look-LLM-unlearning b622294 `idk_loss`,
    `ap_loss`, whose weights are 1 too.

    Deviations: the CE is a mean over rows (there over the tokens of a micro-batch).

    Attributes:
        retain: Default: the paper.
    """

    retain: str = "ap"

    trains_on: ClassVar[Literal["answer", "preferred"]] = "preferred"


@dataclass(frozen=True, kw_only=True)
class TaskVector(CrossEntropy):
    """Train further on the forget answers, then move the weights in the opposite direction.

        θ_new = θ - α (θ_learnt - θ),   θ_learnt trained by descent on L = CE(forget)

    Choose it for a single edit with one knob, `scale`: higher forgets more and causes more general damage.

    Source: Ilharco et al., arXiv:2212.04089; as an unlearning baseline Shi et al., arXiv:2407.06460. Reference code:
    jaechan-repo/muse_bench 54719c5 `task_vector.py`.

    Deviations: the arithmetic is in float32 (there in bf16, which rounds small differences away). With LoRA, the
    difference is taken between the products BA, exactly; if the target has an adapter, the result is an adapter of
    twice the rank.

    Attributes:
        scale: α. To change it you have to train again. Default: MUSE's script, chosen there among 1 to 16.
    """

    scale: float = 5.0

    searched: ClassVar[Mapping[str, tuple[float, float]]] = {"scale": (1.0, 16.0)}

    @property
    def change_factor(self) -> float:
        """Return -α: the opposite direction."""
        return -self.scale
