"""Whether the generated text contradicts the true answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scopewise.data.prompt import Encoded
from scopewise.metrics.base import Answered
from scopewise.metrics.needs.base import Need, with_text
from scopewise.models.judges import class_probabilities


class EntailmentModel(Need):
    """Fills `Answered.contradicts` and `contradicted` with `evaluate.entailment_model`; without it they stay None."""

    def fill(self, rows: list[Answered], items: Sequence[Encoded]) -> list[Answered]:
        """Return the rows with the judgements on their texts."""
        path, indices = self.settings.entailment_model, with_text(rows)
        if not path or not indices:
            return rows
        written, truth = [rows[i].generated or "" for i in indices], [rows[i].row.answer for i in indices]
        name = f"{self.engine.name}: {Path(path).name}"
        forward = class_probabilities(path, list(zip(written, truth, strict=True)), name)
        backward = class_probabilities(path, list(zip(truth, written, strict=True)), name)
        found = list(rows)
        for i, there, back in zip(indices, forward, backward, strict=True):
            found[i] = replace(rows[i], contradicts=_contradicts(there), contradicted=_contradicts(back))
        return found


def _contradicts(classes: Mapping[str, float]) -> bool:
    return max(classes, key=lambda name: classes[name]).startswith("contradict")
