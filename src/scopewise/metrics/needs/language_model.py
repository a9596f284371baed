"""Likelihood of the generated text under another language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need, with_text
from scopewise.models.engine import Engine


class LanguageModel(Need):
    """Fills `Answered.generated_nll`, in nats per token, with `evaluate.language_model`; without it, None."""

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with the NLL of their texts."""
        path, indices = self.settings.language_model, with_text(rows)
        if not path or not indices:
            return rows
        longest = self.engine.data.model_copy(update={"max_length": 10**9})
        name = f"{self.engine.name}: language model"
        judge = Engine.load(path, data=longest, max_tokens=self.settings.max_tokens, name=name)
        texts = [replace(rows[i].row, answer=rows[i].generated or "") for i in indices]
        found = list(rows)
        for i, one in zip(indices, judge.score([item.pair for item in judge.encode(texts)]), strict=True):
            found[i] = replace(rows[i], generated_nll=-sum(one.log_probs) / len(one.log_probs))
        return found
