"""A model as lm-evaluation-harness sees it, scored by our own pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from scopewise.models.cache import AnswerCache
from scopewise.models.engine import Engine
from scopewise.models.score import Pair


class ScoredModel(HFLM):
    """The harness's own model in everything but the forward.

    Tokenization, chat template and left truncation are the harness's. The forward is `Engine.score`: choices of a
    question share its forward, logits are in float32 at the choices alone, batches are filled to a budget of tokens and
    halved where memory runs out, processes share them, and what is in the cache is not forwarded again.

    Args:
        engine: Of the model.
        cache: Folder that keeps what the model was found to answer.
    """

    def __init__(self, engine: Engine, cache: str | Path | None = None) -> None:
        super().__init__(pretrained=engine.model, tokenizer=engine.tokenizer)
        self._engine = engine
        self._answers = AnswerCache(cache, engine.model) if cache is not None else None
        self.cut: set[tuple[str, str]] = set()
        """Requests that did not fit the model's context and lost their beginning."""

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return log P (nats) and whether it is the arg-max throughout, of each continuation given its context."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs: list[Pair] = []
        for texts, context, continuation in requests:
            room = self.max_length + 1 - len(continuation)  # the last token is predicted, and not read
            if len(context) > room:
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
