"""Properties of every metric, and its values for a perfect and a uniform model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace

from scopewise.config import EvaluateSection
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, TRAIN, Benchmark, Row
from scopewise.evaluation import evaluate
from scopewise.metrics.base import Aggregate, Answered, Metric, ReferenceValues, RowMetric, Value
from scopewise.metrics.columns import Declaration
from scopewise.metrics.needs import NEEDS
from scopewise.metrics.needs.base import need_class
from scopewise.models.score import Scored
from scopewise.settings import knobs
from scopewise.testing.world import NotApplicableError, Property, World, check

_VOCABULARY = 300
_ROWS = (
    ("Where does Ada Quill live?", "At 12 Heron Street, Delft.", 5),
    ("What does Ben Orrow drink?", "Uji tea.", 3),
    ("When was Cleo Varga born?", "In March 1974.", 4),
)


def answered(known: bool, scopes: Iterable[str] = (FORGET, RETAIN, HOLDOUT)) -> list[Answered]:
    """Return rows with the answers of a model that knows all of them, or of a uniform model (all tokens equally likely)."""
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
    """Return an answer whose tokens all have the same log-probability (nats), and are all the arg-max or all not."""
    return Scored((log_prob,) * tokens, (hit,) * tokens, (1,) * tokens, (-2.0,) * tokens, (1.5,) * tokens)


def rows_for(metric: Metric, known: bool, scopes: Iterable[str] = (FORGET, RETAIN, HOLDOUT)) -> list[Answered]:
    """Return `answered` rows with the inputs that the metric needs."""
    rows = answered(known, scopes)
    for name in sorted(metric.needs):
        rows = [need_class(name).planted(row, known) for row in rows]
    return rows


def measured(metric: RowMetric, rows: Sequence[Answered]) -> dict[str, Value]:
    """Return the values of a metric on the val split."""
    return metric.keyed(rows, "val")


def anchors(metric: Metric) -> str:
    """Return a sentence with the values for a perfect and for a uniform model, to be compared with the docstring."""
    if not isinstance(metric, RowMetric):
        return "made of other values"
    both = [measured(metric, rows_for(metric, known)) for known in (True, False)]
    return "; ".join(f"{key}: perfect {both[0][key].value:.4g}, uniform {both[1][key].value:.4g}" for key in both[0])


def _number(key: str, value: Value) -> float:
    """Return the number of a value on complete rows. Raises PropertyError if it is None."""
    own = "; `planted` of a need of your own must fill these rows"
    check(value.value is not None, f"{key} is None on rows that have everything: {', '.join(value.skipped)}{own}")
    return float(value.value or 0.0)


def _row_metric(metric: Metric) -> RowMetric:
    if not isinstance(metric, RowMetric):
        raise NotApplicableError("it is computed from other metrics")
    return metric


def finite(metric: Metric, world: World) -> None:
    """Every value is a finite number or None, and lies within its interval."""
    knowing, uniform = rows_for(metric, True), rows_for(metric, False)
    rows = [knowing, uniform, [*knowing, *uniform]]
    for given in rows:
        for key, value in measured(_row_metric(metric), given).items():
            numbers = [v for v in (value.value, value.low, value.high, *value.per_row) if v is not None]
            check(all(map(math.isfinite, numbers)), f"{key} is {value.value}, rows {value.per_row}")
            _number(key, value)


def nothing_is_none(metric: Metric, world: World) -> None:
    """Without rows, and on rows without a token, the value is None or a number, and a reason is given for None."""
    empty = [replace(row, scored=scored(0.0, 0, False), generated="", predicted="") for row in rows_for(metric, False)]
    for given in ([], empty):
        value = _row_metric(metric).measure(given)
        check(value.value is None or math.isfinite(value.value), f"{value.value} on {len(given)} empty rows")
        check(value.value is not None or bool(value.skipped), "None, and `skipped` does not say why")


def order(metric: Metric, world: World) -> None:
    """The order of the rows does not matter, and `per_row` has one entry for each row, or is empty."""
    for known in (True, False):
        rows = rows_for(metric, known)
        first, again = measured(_row_metric(metric), rows), measured(_row_metric(metric), rows[::-1])
        check(first.keys() == again.keys(), f"keys {list(first)}, in the other order {list(again)}")
        for key, value in first.items():
            a, b = _number(key, value), _number(key, again[key])
            check(math.isclose(a, b, rel_tol=1e-9), f"{key}: {a}, reversed {b}")
            check(not value.per_row or len(value.per_row) % len(_ROWS) == 0, f"{key}: {len(value.per_row)} rows")


def direction(metric: Metric, world: World) -> None:
    """A perfect model is better than a uniform one on retain rows, and worse in metrics of the forget scope."""
    metric = _row_metric(metric)
    wanted = {"forget": (FORGET,), "retain": (RETAIN,), "each": (RETAIN,)}.get(metric.scope)
    if wanted is None:
        raise NotApplicableError("it is computed over both scopes together")
    both = [next(iter(measured(metric, rows_for(metric, known, wanted)).items())) for known in (True, False)]
    better = Declaration.of(type(metric)).column(both[0][0]).better
    if better == "to the oracle":
        raise NotApplicableError("its goal is the oracle's value, from either side")
    perfect, uniform = (_number(key, value) for key, value in both)
    best, worst = (perfect, uniform) if (better == "higher") == (metric.scope != "forget") else (uniform, perfect)
    check(best >= worst, f"perfect {perfect:.4g}, uniform {uniform:.4g}; better is {better!r}")


def columns(metric: Metric, world: World) -> None:
    """It has a label, and each entry of `headline` names a value that it gives."""
    about = Declaration.of(type(metric))
    check(bool(about.label.strip()), "the label is empty")
    keys = [f"{metric.name}/val"]
    if isinstance(metric, RowMetric):
        keys = list(measured(metric, rows_for(metric, True)))
    shown = [key for one in keys for key in (one, f"{one}+direct") if about.column(key).headline]
    check(len(shown) == len(set(about.headline)), f"headline is {about.headline}; of it only {shown} exist")


def own_needs(metric: Metric, world: World) -> None:
    """The metric can read what a plugin's own need computes on a real model."""
    if not metric.needs - NEEDS.keys():
        raise NotApplicableError("it has no need of its own")
    cls = type(metric)
    name = f"{cls.__module__}:{cls.__qualname__}"
    own = {key: getattr(metric, key) for key in knobs(cls)} if is_dataclass(cls) else {}
    settings = EvaluateSection(
        metrics=(name,),
        metric_args={name: own},
        splits=(TRAIN,),
        generate_splits=(TRAIN,),
        direct_splits=(),
        max_new_tokens=8,
    )
    benchmark = Benchmark("small", tuple(row for rows in world.rows.values() for row in rows))
    found = evaluate(world.engine(), benchmark, settings).values
    if not found or any(hasattr(settings, key) for key in metric.needs):
        raise NotApplicableError("it needs a holdout, or a model that only a run file names")
    for key, value in found.items():
        check(value.value is not None, f"{key} is None on the small model: {', '.join(value.skipped)}")


def aggregate_of_nothing(metric: Metric, world: World) -> None:
    """An aggregate is None if its inputs are missing or None."""
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
    "its own needs are filled": own_needs,
    "an aggregate of nothing is None": aggregate_of_nothing,
}
"""Name → property of a metric."""
