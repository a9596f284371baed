"""Whether the generated text is fluent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need, with_text
from scopewise.models.judges import class_probabilities


class FluencyModel(Need):
    """Fills `Answered.fluency`: the probability of the first class of `evaluate.fluency_model`; without it, None."""

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with the judgements on their texts."""
        path, indices = self.settings.fluency_model, with_text(rows)
        if not path or not indices:
            return rows
        texts = [(rows[i].generated or "",) for i in indices]
        found = list(rows)
        for i, classes in zip(
            indices, class_probabilities(path, texts, f"{self.engine.name}: {Path(path).name}"), strict=True
        ):
            found[i] = replace(rows[i], fluency=next(iter(classes.values())))
        return found
