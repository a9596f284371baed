"""What other models say about the generated texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need
from scopewise.models.engine import Engine
from scopewise.models.judges import class_probabilities


class Judgement(Need):
    """Base of judgements on the generated texts by a model that a setting names; without it, rows stay as they are."""

    setting: ClassVar[str]
    """The setting of the `evaluate` section that names the model."""

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with the judgements on their texts; rows without a text have none."""
        path, written = getattr(self.settings, self.setting), [row for row in rows if row.generated]
        if not path or not written:
            return rows
        found = iter(self.judged(path, written))
        return [replace(row, **next(found)) if row.generated else row for row in rows]

    def judged(self, path: str, rows: Sequence[Answered]) -> Iterable[Mapping[str, Any]]:
        """Return the attributes of `Answered` to fill in for each of the rows, all of which have a text."""
        raise NotImplementedError


class EntailmentModel(Judgement):
    """Fills `Answered.contradicts` and `contradicted` with `evaluate.entailment_model`; without it they stay None."""

    setting = "entailment_model"

    def judged(self, path: str, rows: Sequence[Answered]) -> Iterable[Mapping[str, Any]]:
        """Return whether the text contradicts the true answer, and the other way round."""
        texts = [(row.generated or "", row.row.answer) for row in rows]
        name = f"{self.engine.name}: {Path(path).name}"
        forward = class_probabilities(path, texts, name)
        backward = class_probabilities(path, [(truth, written) for written, truth in texts], name)
        return [
            {"contradicts": _contradicts(there), "contradicted": _contradicts(back)}
            for there, back in zip(forward, backward, strict=True)
        ]


class FluencyModel(Judgement):
    """Fills `Answered.fluency`: the probability of the first class of `evaluate.fluency_model`; without it, None."""

    setting = "fluency_model"

    def judged(self, path: str, rows: Sequence[Answered]) -> Iterable[Mapping[str, Any]]:
        """Return the probability that the text is fluent."""
        texts = [(row.generated or "",) for row in rows]
        found = class_probabilities(path, texts, f"{self.engine.name}: {Path(path).name}")
        return [{"fluency": next(iter(classes.values()))} for classes in found]


class LanguageModel(Judgement):
    """Fills `Answered.generated_nll`, in nats per token, with `evaluate.language_model`; without it, None."""

    setting = "language_model"

    def judged(self, path: str, rows: Sequence[Answered]) -> Iterable[Mapping[str, Any]]:
        """Return the NLL of the text."""
        longest = self.engine.data.model_copy(update={"max_length": 10**9})
        name = f"{self.engine.name}: language model"
        judge = Engine.load(path, data=longest, max_tokens=self.settings.max_tokens, name=name)
        texts = [replace(row.row, answer=row.generated or "") for row in rows]
        scored = judge.score([item.pair for item in judge.encode(texts)])
        return [{"generated_nll": -sum(one.log_probs) / len(one.log_probs)} for one in scored]


def _contradicts(classes: Mapping[str, float]) -> bool:
    return max(classes, key=lambda name: classes[name]).startswith("contradict")
