"""The contract of a metric: over rows, over the membership of two sets of rows, or over other metrics' values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from scopewise.config import EvaluateSection
from scopewise.data.instances import instance_of
from scopewise.data.prompt import dropped_sentence
from scopewise.data.rows import FORGET, HOLDOUT, Row
from scopewise.metrics.columns import Better, Declaration
from scopewise.models.score import Scored
from scopewise.settings import make
from scopewise.statistics import estimate, mean_interval


@dataclass(frozen=True)
class Answered:
    """A row, and a model's scores and texts for it.

    Attributes:
        row: The row.
        scored: Of the true answer; with its end of sequence where `evaluate.eos` says so.
        predicted: The decoded arg-max tokens (teacher-forced): text that depends on the true answer.
        generated: The text the model writes after the prompt, greedily; None where nothing was generated.
        paraphrase: Of the answer in other words, where the row has one.
        perturbed: Of the row's wrong answers.
        reference_log_probs: As `scored.log_probs`, of another model, for the metrics that compare with one.
        gradient_norm: Mean over parameters of the norm of the loss's gradient, if a metric needs it.
        contradicts: Whether the generated text contradicts the true answer, by a judge; None without one.
        contradicted: Whether the true answer contradicts the generated text.
        fluency: Probability (0-1) that the generated text is language, by a judge.
        generated_nll: Mean NLL of the generated text given the prompt under a judging language model, in nats per token.
        more: Inputs without an attribute of their own here (such as those of plugins), by the need's name as in
            `Metric.needs`.
        too_long: Which other answers of the row (`paraphrase`, `perturbed`) were left out because they do not fit.
    """

    row: Row
    scored: Scored
    predicted: str = ""
    generated: str | None = None
    paraphrase: Scored | None = None
    perturbed: tuple[Scored, ...] = ()
    reference_log_probs: tuple[float, ...] = ()
    gradient_norm: float | None = None
    contradicts: bool | None = None
    contradicted: bool | None = None
    fluency: float | None = None
    generated_nll: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    too_long: frozenset[str] = frozenset()

    @property
    def log_probs(self) -> tuple[float, ...]:
        """Log P of each token of the answer itself, in nats."""
        return self.scored.without_end().log_probs

    @property
    def hits(self) -> tuple[bool, ...]:
        """Whether each token of the answer itself is the arg-max."""
        return self.scored.without_end().hits


@dataclass(frozen=True)
class Value:
    """What a metric returns.

    Attributes:
        value: The measure, or None where no row could be measured (never NaN, never a silent zero).
        per_row: The value of each row, in row order, None for a row that was left out; empty if the metric is not a mean
            over rows.
        skipped: Why rows were left out, one sentence per reason; empty if none was.
        low: Lower end of the 95 % bootstrap interval; None where there is none.
        high: Upper end.
        note: How to read it, if that depends on the available inputs (a missing reference, a substitute).
    """

    value: float | None
    per_row: tuple[float | None, ...] = ()
    skipped: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    note: str = ""

    def document(self) -> dict[str, Any]:
        """Return its entry in an evaluation document."""
        return asdict(self)

    @property
    def known(self) -> tuple[float, ...]:
        """The values of the rows that were measured."""
        return tuple(v for v in self.per_row if v is not None)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Base of all metrics: settings as fields, and class attributes, as literals, that say how its values are shown."""

    name: ClassVar[str]
    """Its key in the table."""
    label: ClassVar[str]
    """Its heading in tables; the scope is added for a metric with a value for each scope."""
    unit: ClassVar[str] = ""
    """Its unit, such as `%`; empty for a share (0-1) or a number without one."""
    better: ClassVar[Better]
    """`higher`, `lower`, or `to the oracle`: the closer to a model that never saw the forget scope, the better."""
    better_on_forget: ClassVar[Better | None] = None
    """The same for its values on forget rows, if it is another."""
    headline: ClassVar[tuple[str, ...]] = ()
    """Which of its values are columns of the table of a run: the empty text for that of a split, a scope for that of a
    scope, with `+direct` for the one with the direct prompt."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What has to be computed for it besides the scores of the true answers: keys of `metrics.needs.NEEDS`."""

    def keyed(self, rows: Sequence[Answered], split: str, dropped: Sequence[Row] = ()) -> dict[str, Value]:
        """Return `metric/split` → value from a model's answers to rows; empty for a metric of other metrics' values.

        Args:
            rows: The rows with the model's answers.
            split: For the keys.
            dropped: Rows that were left out before, because they are too long.
        """
        return {}

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the value on a split (`val`, `val+direct`, …) from other metrics' values; None for a metric of rows."""
        return None


@dataclass(frozen=True, kw_only=True)
class RowMetric(Metric):
    """A metric that is computed from a model's answers to rows: `measure`, and the scope of these rows."""

    scope: ClassVar[Literal["forget", "retain", "both", "each", "membership"]]
    """`forget`, `retain` (rows of that scope), `both` (rows of both at once), `each` (once for each scope there is), or
    `membership` (forget and holdout rows at once)."""
    bounds: ClassVar[tuple[float, float] | None] = None
    """Least and largest value of a mean over rows whose interval is a t interval (see `statistics.Estimate`); None: a bootstrap
    interval."""

    missing: ClassVar[str] = "no answer token"
    """Why a row has no value."""

    def score(self, row: Answered) -> float | None:
        """Return the value of one row; None leaves it out."""
        raise NotImplementedError

    def measure(self, rows: Sequence[Answered]) -> Value:
        """Return the measure of a model on these rows: the mean over them of `score`, unless a metric overrides it."""
        return mean([self.score(row) for row in rows], self.missing)

    def keyed(self, rows: Sequence[Answered], split: str, dropped: Sequence[Row] = ()) -> dict[str, Value]:
        """Return `metric/split` → value, over the rows that `scope` names; `each` has `metric/scope_split`.

        No text is generated for rows without a question and for holdout rows, so metrics of generated text leave them out.
        `skipped` counts and names the `dropped` rows.
        """
        if "generated" in self.needs:
            rows = [row for row in rows if _is_asked(row.row)]
            dropped = [row for row in dropped if _is_asked(row)]
        present = list(dict.fromkeys([*(answered.row.scope for answered in rows), *(row.scope for row in dropped)]))
        if self.scope == "each":
            return {f"{self.name}/{s}_{split}": self._measured(rows, dropped, (s,)) for s in present}
        wanted = {"both": (FORGET, "retain"), "membership": (FORGET, HOLDOUT)}.get(self.scope, (self.scope,))
        if not set(wanted) <= set(present):
            return {}
        return {f"{self.name}/{split}": self._measured(rows, dropped, wanted)}

    def _measured(self, rows: Sequence[Answered], dropped: Sequence[Row], scopes: Sequence[str]) -> Value:
        """Return the measure over rows of these scopes; those with an answer that does not fit are left out and named."""
        rows, dropped = _of(rows, scopes), [row for row in dropped if row.scope in scopes]
        fits = [not self.needs & answered.too_long for answered in rows]
        value = self.measure([answered for answered, fit in zip(rows, fits, strict=True) if fit])
        reasons = []
        if not all(fits):
            if value.per_row or not any(fits):
                found = iter(value.per_row)
                value = replace(value, per_row=tuple(next(found) if fit else None for fit in fits))
            lost = [answered.row for answered, fit in zip(rows, fits, strict=True) if not fit]
            reasons.append(
                f"{len(lost)} of {len(rows)} rows: a paraphrase or a wrong answer is {dropped_sentence(lost)}"
            )
        if dropped:
            reasons.append(f"{len(dropped)} of {len(dropped) + len(rows)} rows: {dropped_sentence(dropped)}")
        value = replace(value, skipped=(*value.skipped, *reasons)) if reasons else value
        return self._by_instance(value, rows)

    def _by_instance(self, value: Value, rows: Sequence[Answered]) -> Value:
        """Return a mean over rows with the interval over their instances, since rows of one person are not independent."""
        kept = [(x, about(row)) for x, row in zip(value.per_row, rows, strict=False) if x is not None]
        if value.value is None or len(value.per_row) != len(rows) or not kept:
            return value
        if not math.isclose(value.value, math.fsum(x for x, _ in kept) / len(kept), rel_tol=1e-9, abs_tol=1e-12):
            return value  # not the mean of its rows
        numbers: dict[str, int] = {}
        instance = np.array([numbers.setdefault(name, len(numbers)) for _, name in kept])
        values = np.array([x for x, _ in kept])
        if self.bounds is None:
            found = mean_interval(values, instance)
        else:
            found = estimate(values[None], instance).interval(self.bounds)
        return replace(value, low=found.low, high=found.high)


class KnowledgeMetric(RowMetric):
    """Base of metrics that are higher the more of the answers a model knows, with one value for each scope."""

    scope = "each"
    better = "higher"
    better_on_forget = "to the oracle"


@dataclass(frozen=True)
class ReferenceValues:
    """Metrics of the models that a model is compared with.

    Attributes:
        values: Metrics, by the same keys, of the model that never saw the forget scope: the oracle, a retrained model.
        target: Metrics of the model before unlearning, for the metrics that are scaled with it.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    target: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Aggregate(Metric):
    """A metric of other metrics' values, of the model and of a reference."""

    def combine(self, values: Mapping[str, Value], reference: ReferenceValues | None, split: str) -> Value | None:
        """Return the measure on a split (`val`, `val+direct`, …); None if its inputs were not measured."""
        raise NotImplementedError


def make_metric(name: str, **arguments: Any) -> Metric:
    """Build a metric by name.

    Raises:
        ConfigError: unknown metric or setting (with the nearest name), a value that does not fit, or a class that
            does not declare label and direction.
    """
    made: Metric = make("metrics", name, f"evaluate.metric_args.{name}", arguments)
    Declaration.of(type(made))
    return made


def make_metrics(settings: EvaluateSection) -> list[Metric]:
    """Return the metrics of a run, after checking the arguments of all that `metric_args` names. Raises ConfigError."""
    given = settings.metric_args
    made = {name: make_metric(name, **given.get(name, {})) for name in (*settings.metrics, *given)}
    return [made[name] for name in settings.metrics]


def mean(values: Sequence[float | None], reason: str) -> Value:
    """Return the mean over the rows that have a finite value, with its interval; the others are counted for `reason`."""
    per_row = tuple(v if v is not None and math.isfinite(v) else None for v in values)
    known = [v for v in per_row if v is not None]
    missing = len(values) - len(known)
    skipped = (f"{missing} of {len(values)} rows: {reason}",) if missing else ()
    if not values:
        skipped = ("no rows",)
    if not known:
        return Value(None, per_row, skipped)
    interval = mean_interval(np.array(known), np.arange(len(known)))  # of a single row there is none
    return Value(math.fsum(known) / len(known), per_row, skipped, interval.low, interval.high)


def answer_probability(log_probs: Sequence[float]) -> float | None:
    """Return the geometric mean of an answer's token probabilities, 0-1; None without tokens."""
    return math.exp(math.fsum(log_probs) / len(log_probs)) if log_probs else None


TINY = 1e-10
"""The reference code adds this to a denominator; it matters if a model has collapsed."""


def harmonic_mean(values: Sequence[float]) -> float:
    """Return the harmonic mean of values that are not negative; 0 where one is."""
    return len(values) / sum(1 / v for v in values) if all(v > 0 for v in values) else 0.0


def about(row: Answered) -> str:
    """Return the instance of a row; see `instance_of`."""
    return instance_of(row.row.instance, row.row.question)


def token_accuracy(row: Answered) -> float | None:
    """Return the share (0-100) of answer tokens that are the arg-max under teacher forcing; None without tokens."""
    return 100.0 * sum(row.hits) / len(row.hits) if row.hits else None


def _is_asked(row: Row) -> bool:
    return bool(row.question) and row.scope != HOLDOUT


def _of(rows: Sequence[Answered], scopes: Sequence[str]) -> list[Answered]:
    return [r for r in rows if r.row.scope in scopes]
