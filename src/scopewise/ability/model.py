"""A model for lm-evaluation-harness that is scored by our own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from scopewise.models.cache import AnswerCache
from scopewise.models.engine import Engine
from scopewise.models.score import Pair

_ALL = 2**31
"""Windows of text that the harness hands over at a time; `Engine.score` makes the batches."""


class ScoredModel(HFLM):
    """The harness's HFLM with another forward pass.

    Tokenization, chat template and left truncation are the harness's. The forward pass is `Engine.score`: the choices
    of a question share the forward of their prompt, only the choices have float32 logits, batches are filled to a token
    budget and halved when memory runs out, processes share the batches, and cached scores are reused.

    Args:
        engine: Of the model.
        cache: Of the model's scores.
    """

    def __init__(self, engine: Engine, cache: AnswerCache | None = None) -> None:
        super().__init__(pretrained=engine.model, tokenizer=engine.tokenizer, batch_size=_ALL)
        self._engine = engine
        self._answers = cache
        self.cut: set[tuple[str, str]] = set()
        """Requests longer than the model's context, which were truncated on the left."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return, for each continuation given its context, log P (nats) and whether every token is the arg-max."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return log P (nats) of each text, in windows of the model's context that do not overlap."""
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs: list[Pair] = []
        for texts, context, continuation in requests:
            room = self.max_length + 1 - len(continuation)  # the last token is predicted, not fed
            if len(context) > room and texts is not None:
                self.cut.add(texts)
            pairs.append((tuple(context[-max(room, 1) :]), tuple(continuation)))
        unique = list(dict.fromkeys(pairs))
        missing = unique if self._answers is None else self._answers.missing(unique)
        fresh = self._engine.score(missing, "ability", moments=False) if missing else []
        if self._answers is None:
            found = dict(zip(unique, fresh, strict=True))
        else:
            self._answers.add_scores(missing, fresh)
            found = dict(zip(unique, self._answers.scores(unique), strict=True))
        return [(sum(found[pair].log_probs), all(found[pair].hits)) for pair in pairs]
