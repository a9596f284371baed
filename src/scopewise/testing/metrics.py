"""What every metric must satisfy, whichever it is, and its values for a perfect and a uniform model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, Row
from scopewise.metrics.base import Aggregate, Answered, Metric, ReferenceValues, RowMetric, Value
from scopewise.metrics.columns import Declaration
from scopewise.models.score import Scored
from scopewise.testing.world import NotApplicableError, Property, World, check

_VOCABULARY = 300
_ROWS = (
    ("Where does Ada Quill live?", "At 12 Heron Street, Delft.", 5),
    ("What does Ben Orrow drink?", "Uji tea.", 3),
    ("When was Cleo Varga born?", "In March 1974.", 4),
)


def answered(known: bool, scopes: Iterable[str] = (FORGET, RETAIN, HOLDOUT)) -> list[Answered]:
    """Return rows as a model answers them that knows every answer, or one that gives every token the same probability."""
    found = []
    for scope in scopes:
        for question, answer, tokens in _ROWS:
            row = Row(question, answer, scope, paraphrase=f"It is so: {answer}", perturbed=("No such place.",))
            log_prob = -1e-4 if known else -math.log(_VOCABULARY)
            text = answer if known else "the of of the"
            found.append(
                Answered(
                    row,
                    scored(log_prob, tokens, known),
                    predicted=text,
                    generated=text,
                    paraphrase=scored(log_prob, tokens + 3, known),
                    perturbed=(scored(-8.0 if known else log_prob, 4, False),),
                    reference_log_probs=(-1.0,) * tokens,
                    gradient_norm=0.1 if known else 1.0,
                    contradicts=not known,
                    contradicted=not known,
                    fluency=0.9 if known else 0.1,
                    generated_nll=1.0,
                )
            )
    return found


def scored(log_prob: float, tokens: int, hit: bool) -> Scored:
    """Return an answer whose tokens have one log-probability (nats); all of them are the arg-max, or none."""
    return Scored((log_prob,) * tokens, (hit,) * tokens, (1,) * tokens, (-2.0,) * tokens, (1.5,) * tokens)


def measured(metric: RowMetric, rows: Sequence[Answered]) -> dict[str, Value]:
    """Return the values of a metric on the val split."""
    return metric.keyed(rows, "val")


def anchors(metric: Metric) -> str:
    """Return in words what a metric is for a perfect and for a uniform model, to be compared with its docstring."""
    if not isinstance(metric, RowMetric):
        return "made of other values"
    both = [measured(metric, answered(known)) for known in (True, False)]
    return "; ".join(f"{key}: perfect {both[0][key].value:.4g}, uniform {both[1][key].value:.4g}" for key in both[0])


def _row_metric(metric: Metric) -> RowMetric:
    if not isinstance(metric, RowMetric):
        raise NotApplicableError("it is computed from other metrics")
    return metric


def finite(metric: Metric, world: World) -> None:
    """Every value is a number or None, never NaN or infinite; and its interval holds it."""
    rows = [answered(True), answered(False), [*answered(True), *answered(False)]]
    for given in rows:
        for key, value in measured(_row_metric(metric), given).items():
            numbers = [v for v in (value.value, value.low, value.high, *value.per_row) if v is not None]
            check(all(map(math.isfinite, numbers)), f"{key} is {value.value}, rows {value.per_row}")
            check(value.value is not None, f"{key} is None on rows that have everything: {value.skipped}")


def nothing_is_none(metric: Metric, world: World) -> None:
    """Without rows, and on rows without a token, the value is None or a number, and a reason is given for None."""
    empty = [replace(row, scored=scored(0.0, 0, False), generated="", predicted="") for row in answered(False)]
    for given in ([], empty):
        value = _row_metric(metric).measure(given)
        check(value.value is None or math.isfinite(value.value), f"{value.value} on {len(given)} empty rows")
        check(value.value is not None or bool(value.skipped), "None, and `skipped` does not say why")


def order(metric: Metric, world: World) -> None:
    """The order of the rows changes nothing, and one value is given for each row, or none at all."""
    for known in (True, False):
        rows = answered(known)
        first, again = measured(_row_metric(metric), rows), measured(_row_metric(metric), rows[::-1])
        check(first.keys() == again.keys(), f"keys {list(first)}, in the other order {list(again)}")
        for key, value in first.items():
            a, b = value.value, again[key].value
            check(a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9), f"{key}: {a}, reversed {b}")
            check(not value.per_row or len(value.per_row) % len(_ROWS) == 0, f"{key}: {len(value.per_row)} rows")


def direction(metric: Metric, world: World) -> None:
    """On retain rows a metric is better for a perfect model than for a uniform one, and one of the forget scope worse."""
    metric = _row_metric(metric)
    wanted = {"forget": (FORGET,), "retain": (RETAIN,), "each": (RETAIN,)}.get(metric.scope)
    if wanted is None:
        raise NotApplicableError("it is computed over both scopes together")
    both = [next(iter(measured(metric, answered(known, wanted)).items())) for known in (True, False)]
    better = Declaration.of(type(metric)).column(both[0][0]).better
    if better == "to the oracle":
        raise NotApplicableError("its goal is the oracle's value, from either side")
    perfect, uniform = (value.value for _, value in both)
    assert perfect is not None
    assert uniform is not None
    best, worst = (perfect, uniform) if (better == "higher") == (metric.scope != "forget") else (uniform, perfect)
    check(best >= worst, f"perfect {perfect:.4g}, uniform {uniform:.4g}; better is {better!r}")


def columns(metric: Metric, world: World) -> None:
    """It has a label, and each entry of `headline` names a value that it gives."""
    about = Declaration.of(type(metric))
    check(bool(about.label.strip()), "the label is empty")
    keys = [f"{metric.name}/val"]
    if isinstance(metric, RowMetric):
        keys = list(measured(metric, answered(True)))
    shown = [key for one in keys for key in (one, f"{one}+direct") if about.column(key).headline]
    check(len(shown) == len(set(about.headline)), f"headline is {about.headline}; of it only {shown} exist")


def aggregate_of_nothing(metric: Metric, world: World) -> None:
    """An aggregate of nothing, and of values that are None, is None."""
    if not isinstance(metric, Aggregate):
        raise NotApplicableError("it is not an aggregate")
    for reference in (None, ReferenceValues()):
        found = metric.combine({}, reference, "val")
        check(found is None or found.value is None, f"{found} of no value")


PROPERTIES: Mapping[str, Property] = {
    "values are finite": finite,
    "no row gives None, with a reason": nothing_is_none,
    "row order changes nothing": order,
    "the direction is that of its anchors": direction,
    "its columns are declared": columns,
    "an aggregate of nothing is None": aggregate_of_nothing,
}
"""Name → property of a metric."""
