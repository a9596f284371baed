"""General ability: accuracy on the harness's tasks, the paper's mean over tasks, and perplexity of general text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from scopewise.ability.tasks import load_tasks, quiet
from scopewise.config import PAPER_ABILITY, AbilitySection
from scopewise.errors import ConfigError
from scopewise.metrics.base import Value
from scopewise.metrics.columns import Better
from scopewise.models.cache import AnswerCache
from scopewise.models.engine import Engine
from scopewise.terminal import counted

_NORMAL_95 = 1.959964
_LARGEST = 700.0
"""exp of more is no float64."""


class Ability:
    """How tables and pages show the values, declared as by a metric (`metrics.base.Metric`)."""

    name = "ability"
    label = "Ability"
    unit = "%"
    better: Better = "higher"
    better_on_forget = None
    headline = ("mean",)


class WordPerplexity:
    """How tables and pages show word perplexities; they are no percentages, so the mean leaves them out."""

    name = "word_perplexity"
    label = "Word perplexity"
    unit = ""
    better: Better = "lower"
    better_on_forget = None
    headline = ("wikitext",)


def measure_ability(engine: Engine, settings: AbilitySection, cache: AnswerCache | None = None) -> dict[str, Value]:
    """Return `ability/TASK` → accuracy in percent, `ability/mean`, and `word_perplexity/TASK` of tasks such as `wikitext`.

    Formula: the share of questions whose correct choice has the highest log P; for `truthfulqa_mc2` the mean share of
    probability on the true answers. MMLU pools the questions of all subjects. `ability/TASK_norm` uses log P per character,
    for tasks that have it. `ability/mean` is the mean over tasks, without the `_norm` values. Range 0-100, higher is better;
    chance is 100 over the number of choices. `word_perplexity/TASK` is exp(-Σ log P / Σ words) over all texts, lower is
    better; its interval is that of the ratio, over texts. Intervals are value ± 1.96 standard errors. Questions whose score
    is not finite are skipped and counted.

    Args:
        engine: Of the model.
        settings: The tasks and their source.
        cache: Of the model's scores.

    Raises:
        ConfigError, DataError: as `load_tasks`; or the tokenizer has no chat template.
        ModelError: a logit that is not a number.

    Source: EleutherAI/lm-evaluation-harness 0.4.13, its own tasks; arXiv:2407.01920 section 3, which gives neither shots
    nor the TruthfulQA variant (zero shots and mc2 are our reading).
    """
    tasks = load_tasks(settings)
    if settings.chat_template and not engine.tokenizer.chat_template:
        raise ConfigError(
            "evaluate.ability.chat_template: true; this tokenizer has no chat template; set it to false, or add one"
        )
    import lm_eval

    from scopewise.ability.model import ScoredModel

    training = engine.model.training
    with quiet():
        scored = ScoredModel(engine, cache)
        done = lm_eval.evaluate(
            scored,
            {"tasks": {task.task_name: task for members in tasks.values() for task in members}},
            samples={
                task.task_name: list(range(min(most, len(task.eval_docs))))
                for name, members in tasks.items()
                if (most := settings.most(name)) is not None
                for task in members
            },
            bootstrap_iters=0,
            apply_chat_template=settings.chat_template,
            fewshot_as_multiturn=settings.chat_template,
        )
    engine.model.train(training)
    found: dict[str, Value] = {}
    for name, members in tasks.items():
        samples = [s for task in members for s in sorted(done["samples"][task.task_name], key=lambda s: s["doc_id"])]
        cut = sum(any(tuple(argument) in scored.cut for argument in s["arguments"]) for s in samples)
        if all("word_perplexity" in s for s in samples):
            found[f"word_perplexity/{name}"] = perplexity([s["word_perplexity"] for s in samples], settings.most(name))
        for suffix, metric in (("", "acc"), ("_norm", "acc_norm")):
            if all(metric in s for s in samples):
                found[f"ability/{name}{suffix}"] = _accuracy([float(s[metric]) for s in samples], cut, settings, name)
    if measured := tuple(name for name in tasks if f"ability/{name}" in found):
        found["ability/mean"] = _mean(found, measured)
    return found


def perplexity(texts: Sequence[tuple[float, int]], most: int | None = None) -> Value:
    """Return exp of the mean negative log P (nats) per word, from log P and number of words of each text.

    The interval is exp of that mean ± 1.96 standard errors of a ratio: texts are drawn, not words.
    """
    per_row = tuple(_exp(-log_p / words) for log_p, words in texts)
    known = [text for text in texts if math.isfinite(text[0])]
    missing = len(texts) - len(known)
    skipped = [f"{missing} of {len(texts)} texts: the score is not finite"] if missing else []
    note = counted(len(known), "text")
    if most is not None:
        note += f"; limited to the first {most}"
    if not known:
        return Value(None, per_row, tuple(skipped), note=note)
    n, words = len(known), sum(count for _, count in known)
    rate = -math.fsum(log_p for log_p, _ in known) / words
    if n < 2:
        return Value(_exp(rate), per_row, tuple(skipped), note=note)
    squares = math.fsum((-log_p - rate * count) ** 2 for log_p, count in known)
    half = _NORMAL_95 * math.sqrt(n / (n - 1) * squares) / words
    return Value(_exp(rate), per_row, tuple(skipped), _exp(rate - half), _exp(rate + half), note)


def _exp(value: float) -> float | None:
    """Return exp; None if it is no number or too large for one, as of a collapsed model."""
    return math.exp(value) if value < _LARGEST else None


def _accuracy(shares: Sequence[float], cut: int, settings: AbilitySection, name: str) -> Value:
    per_row = tuple(100.0 * s if math.isfinite(s) else None for s in shares)
    known = [v for v in per_row if v is not None]
    missing = len(per_row) - len(known)
    skipped = [f"{missing} of {len(per_row)} questions: the score is not finite"] if missing else []
    notes = [f"{len(known)} questions", f"{settings.shots.get(name, 0)} shots"]
    if (most := settings.most(name)) is not None:
        notes.append(f"limited to the first {most} of each subject or task")
    if cut:
        notes.append(f"{cut} prompts longer than the model's context lost their beginning")
    if not known:
        return Value(None, per_row, tuple(skipped), note="; ".join(notes))
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
    if error is not None:
        notes.insert(1, f"standard error {error:.2f}")
    return Value(math.fsum(known) / len(known), per_row, tuple(skipped), *_interval(known, error), "; ".join(notes))


def _interval(known: Sequence[float], error: float | None) -> tuple[float | None, float | None]:
    if error is None:
        return None, None
    middle = math.fsum(known) / len(known)
    return max(0.0, middle - _NORMAL_95 * error), min(100.0, middle + _NORMAL_95 * error)


def _mean(found: Mapping[str, Value], names: Sequence[str]) -> Value:
    values = [found[f"ability/{name}"] for name in names]
    missing = tuple(f"not measured: {n}" for n, v in zip(names, values, strict=True) if v.value is None)
    note = (
        ""
        if set(names) == set(PAPER_ABILITY)
        else f"of {', '.join(names)}; the paper's is of {', '.join(PAPER_ABILITY)}"
    )
    if missing:
        return Value(None, (), missing, note=note)
    middle = math.fsum(v.value for v in values if v.value is not None) / len(values)
    errors = [statistics.stdev(v.known) / math.sqrt(len(v.known)) for v in values if len(v.known) > 1]
    if len(errors) < len(values):
        return Value(middle, note=note)
    error = math.hypot(*errors) / len(values)
    return Value(middle, (), (), max(0.0, middle - _NORMAL_95 * error), min(100.0, middle + _NORMAL_95 * error), note)
