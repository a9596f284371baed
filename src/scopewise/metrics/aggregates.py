"""Metrics of other metrics' values: harmonic means."""

from __future__ import annotations

from collections.abc import Mapping

from scopewise.metrics.base import Aggregate, ReferenceValues, Value, harmonic_mean


def _of_all(found: Mapping[str, float | None], count: str) -> Value:
    """Return the harmonic mean, with a note on the lowest value; None if one of them was not measured."""
    missing = tuple(f"not measured: {name}" for name, value in found.items() if value is None)
    if missing:
        return Value(None, skipped=missing)
    known = {name: value for name, value in found.items() if value is not None}
    lowest = min(known, key=lambda name: known[name])
    return Value(harmonic_mean(list(known.values())), note=f"lowest of the {count}: {lowest} {known[lowest]:.3g}")


def _number(values: Mapping[str, Value], key: str) -> float | None:
    value = values.get(key)
    return None if value is None else value.value


def _of_target(reference: ReferenceValues | None, key: str) -> float:
    """Return the target's value, the divisor of a scaled value; 1 if it is unknown or 0."""
    return (_number(reference.target, key) if reference else None) or 1.0


_KNOWN = [
    f"{metric}/{scope}_{{split}}"
    for scope in ("retain", "real_authors", "world_facts")
    for metric in (
        "probability" if scope == "retain" else "probability_normalised",
        "rouge_l_recall",
        "truth_ratio_retain",
    )
]


class ModelUtility(Aggregate):
    """TOFU's model utility: the harmonic mean of nine metrics of what the model should still know.

    Formula: harmonic mean of probability, ROUGE-L recall and truth ratio (`truth_ratio_retain`) on the retain rows, the
    real authors and the world facts; on the latter two the probability is `probability_normalised`. Range 0-1, higher
    is better. It is 0 if one of the nine is 0; the note names the lowest. None if one of them was not measured.

    Source: TOFU, arXiv:2401.06121; locuslab/open-unlearning d3d7cf9 `hm_aggregate` (equal).
    """

    name = "model_utility"
    label = "Model utility"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the nine."""
        keys = [key.format(split=split) for key in _KNOWN]
        if not any(values.get(key) for key in keys[3:]):
            return None
        return _of_all({key: _number(values, key) for key in keys}, "nine")


_TASKS = {
    f"{metric}/{scope}_{{split}}.task{task}_{kind}": scope
    for task in (1, 2, 3)
    for kind, metric in {"sc": "rouge_l_recall", "qa": "exact_match_generated"}.items()
    for scope in ("forget", "retain")
}


class TaskAggregate(Aggregate):
    """LUME's task aggregate: the harmonic mean of forgetting and retention over its three tasks.

    Formula: harmonic mean of twelve values: for each task, ROUGE-L recall of the continuations and exact match of the
    answers; each once on the forget rows, as 1 - the value, and once on the retain rows. Range 0-1, higher is better.
    It is 0 if one of the twelve is 0, so it is 0 both for a model that knows everything and for one that knows nothing;
    the note names the lowest. None if one of them was not measured, for example on a single task.

    Source: LUME, arXiv:2502.15097, and SemEval-2025 task 4, as its participants describe it; we could not compare with
    the official code.
    """

    name = "task_aggregate"
    label = "Task aggregate"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the twelve."""
        keys = {key.format(split=split): scope for key, scope in _TASKS.items()}
        if not any(key in values for key in keys):
            return None
        found = {key: _number(values, key) for key in keys}
        return _of_all({k: 1 - v if v is not None and keys[k] == "forget" else v for k, v in found.items()}, "twelve")


class Memorization(Aggregate):
    """How little of what the target knew about the forget scope is left: the harmonic mean of four metrics.

    Formula: harmonic mean of 1 - m/m_full over extraction strength, exact memorization, probability of the paraphrase
    and truth ratio of the forget rows, where m_full is the target's value. Range 0-1, higher is better. The target
    scores 0; the oracle's value is what can be reached without any knowledge. Each of the four terms is clipped to 0-1.
    Without the target's values m_full is 1, and the note says so.

    Source: arXiv:2506.12618, section 5. Its code is lost (locuslab/open-unlearning issues #143, #150). The paper says
    that all metrics are scaled with the target's; we read this as m/m_full, which fits its Table 3.
    """

    name = "memorization"
    label = "Memorization"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the four."""
        parts = []
        for name in ("extraction_strength", "exact_memorization", "probability_paraphrase", "truth_ratio"):
            key = f"{name}/forget_{split}"
            if (own := _number(values, key)) is None:
                return None
            parts.append(min(1.0, max(0.0, 1 - own / _of_target(reference, key))))
        scaled = reference and reference.target
        return Value(harmonic_mean(parts), note="" if scaled else "no target: the parts are not scaled with it")


class Privacy(Aggregate):
    """How close four membership inference attacks are to their result on a model that never saw the forget rows.

    Formula: harmonic mean over loss, zlib, min-k and min-k++ of s = min(a/r, (1-a)/(1-r)), where a is the model's AUC
    and r the reference's. Range 0-1, higher is better: 1 if all four equal the reference's, lower in either direction.
    None without a reference.

    Source: arXiv:2506.12618, section 5, which does not define s (locuslab/open-unlearning issue #172). This two-sided
    form is our reading, the only simple one that fits its Table 3; UDS (fc31639) has s = clip(1 - |a-r|/r).
    """

    name = "privacy"
    label = "Privacy"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the four."""
        pairs = []
        for name in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"):
            if (own := _number(values, f"{name}/{split}")) is None:
                return None
            pairs.append((own, _number(reference.values, f"{name}/{split}") if reference else None))
        close = [_closeness(a, r) for a, r in pairs if r is not None]
        if len(close) < len(pairs):
            return Value(None, skipped=("no reference: closeness to a model that never saw the forget rows",))
        return Value(harmonic_mean(close))


def _closeness(auc: float, reference: float) -> float:
    low = auc / reference if reference > 0 else 1.0
    high = (1 - auc) / (1 - reference) if reference < 1 else 1.0
    return min(low, high)


class Utility(Aggregate):
    """Utility relative to the target: model utility and fluency of the generated forget answers.

    Formula: harmonic mean of model utility and fluency (`fluency`), each divided by the target's. Range 0-1 (slightly
    above 1 if the model is better than the target), higher is better. Without fluency the value is model utility alone,
    and the note says so.

    Source: arXiv:2506.12618, section 5; its code is lost (locuslab/open-unlearning issue #150).
    """

    name = "utility"
    label = "Utility"
    better = "higher"

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the two."""
        keys = (f"model_utility/{split}", f"fluency/forget_{split}")
        useful, fluent = (_number(values, key) for key in keys)
        if useful is None:
            return None
        parts = [x / _of_target(reference, key) for x, key in zip((useful, fluent), keys, strict=True) if x is not None]
        notes = ["no fluency: model utility alone"] if fluent is None else []
        if not (reference and reference.target):
            notes.append("no target: not scaled with it")
        return Value(harmonic_mean(parts), note="; ".join(notes))


class Overall(Aggregate):
    """Harmonic mean of memorization, privacy and utility.

    Formula: harmonic mean of the three. Range 0-1, higher is better. It is 0 if one of the three is 0; the note names
    the lowest. None if one could not be computed.

    Source: arXiv:2506.12618, section 5, confirmed in locuslab/open-unlearning issue #150.
    """

    name = "overall"
    label = "Overall"
    better = "higher"
    headline = ("",)

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the harmonic mean of the three."""
        keys = {name: f"{name}/{split}" for name in ("memorization", "privacy", "utility")}
        if not any(key in values for key in keys.values()):
            return None
        return _of_all({name: _number(values, key) for name, key in keys.items()}, "three")
