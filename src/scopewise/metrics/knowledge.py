"""Which names and numbers of the true answers the generated texts still give: entity coverage, KFR, KRR."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Interval

from scopewise.metrics.base import Answered, KnowledgeMetric, RowMetric, Value


class EntityCoverage(KnowledgeMetric):
    """Share of the names, numbers and e-mail addresses of the true answer that occur in the generated text.

    Formula: mean over rows of |Ent(answer) ∩ text| / |Ent(answer)|. Ent are capitalised words (and runs of them),
    numbers and e-mail addresses that are not in the question, compared without case. Range 0-1: perfect recall scores
    1. Rows whose answer has no entities are skipped.

    Source: the entity coverage score of Xu et al., arXiv:2502.11190. Deviation: we find entities by spelling, where
    theirs uses a paid language model and an encoder.
    """

    name = "entity_coverage"
    label = "Entity coverage"
    needs = frozenset({"generated"})
    missing = "no name or number in the answer"

    def score(self, row: Answered) -> float | None:
        """Return the coverage."""
        return entity_coverage(row)


@dataclass(frozen=True, kw_only=True)
class KnowledgeRate(RowMetric):
    """Base of both rates.

    E is the entity coverage (`entity_coverage`); contradiction is the arg-max class of `evaluate.entailment_model`.
    Range 0-1, higher is better. Without that model only E decides, and the note says so. Rows whose answer has no
    entities are skipped.

    Attributes:
        threshold: Entity coverage (0-1) below which an answer counts as forgotten (KFR), above which as retained
            (KRR). Default: the paper.
    """

    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.3

    better = "higher"
    headline = ("",)
    needs = frozenset({"generated", "entailment_model"})
    missing = "no name or number in the answer"

    def score(self, row: Answered) -> float | None:
        """Return 1 if the row counts, else 0."""
        coverage = entity_coverage(row)
        return None if coverage is None else float(self.counts(coverage, row))

    def counts(self, coverage: float, row: Answered) -> bool:
        """Return whether a row with this entity coverage counts."""
        raise NotImplementedError

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the rate."""
        judged = any(row.contradicts is not None for row in rows)
        note = "" if judged else "no evaluate.entailment_model: entity coverage alone"
        return replace(super().measure(rows), note=note)


class KFR(KnowledgeRate):
    """Knowledge forgetting rate: share of forget answers that the generated text no longer gives.

    Formula: mean over rows of [E < `threshold` or the generated text contradicts the true answer]; the generated text
    is the premise, the true answer the hypothesis.

    Source: Xu et al., arXiv:2502.11190, including the thresholds. Deviations: entities are found by spelling;
    zjunlp/unlearn 0800fd2 has other thresholds for short answers, and counts answers without entities as forgotten.
    """

    name = "kfr"
    label = "KFR"
    scope = "forget"

    def counts(self, coverage: float, row: Answered) -> bool:
        """Return whether the answer is forgotten."""
        return coverage < self.threshold or row.contradicts is True


class KRR(KnowledgeRate):
    """Knowledge retention rate: share of retain answers that the generated text still gives.

    Formula: mean over rows of [E > `threshold` and the true answer does not contradict the generated text]; the true
    answer is the premise, the generated text the hypothesis.

    Source: as `kfr`, with its deviations.
    """

    name = "krr"
    label = "KRR"
    scope = "retain"

    def counts(self, coverage: float, row: Answered) -> bool:
        """Return whether the answer is retained."""
        return coverage > self.threshold and row.contradicted is not True


def entity_coverage(row: Answered) -> float | None:
    """Return the share (0-1) of the answer's entities that the generated text has; None where the answer has none."""
    wanted = entities(row.row.answer) - entities(row.row.question)
    found = " ".join(re.findall(r"[\w@.]+", (row.generated or "").lower()))
    return sum(entity in found for entity in wanted) / len(wanted) if wanted else None


def entities(text: str) -> set[str]:
    """Return names, numbers and email addresses of a text in lower case, by their spelling.

    A name is a run of capitalised words; a single one at the beginning of a sentence counts where it is no word that
    sentences begin with.
    """
    found = {email.lower() for email in re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", text)}
    found |= {number.lower() for number in re.findall(r"\b\d[\d,./-]*\d(?:st|nd|rd|th)?\b|\b\d\b", text)}
    for run in re.findall(r"\b[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*", text):
        words = run.split()
        while words and words[0] in _BEGINNINGS:
            words = words[1:]
        if words:
            found.add(" ".join(re.findall(r"[\w@.]+", " ".join(words).lower())))
    return found


_WORDS = """
A About After All Also Although An And Are As At Before Both But By Can Despite During Each For From Given He Her His How
However I If In Is It Its My No Not Of On One Or Our She Since So Some That The Their There These They This Those Through
To Under Until We What When Where Which While Who Why With Yes You Your
"""
_BEGINNINGS = frozenset(_WORDS.split())
"""Words that sentences begin with, which are no names."""
