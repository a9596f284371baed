"""Stage 4: all metrics on all splits; each unique answer is scored once, each unique prompt is continued once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from scopewise import schemas
from scopewise.ability.measure import Ability, WordPerplexity, measure_ability
from scopewise.answers import answers_document
from scopewise.config import EvaluateSection, PartSection
from scopewise.cost import Cost
from scopewise.data.load import check_splits
from scopewise.data.prompt import (
    Encoded,
    Prompt,
    direct_prompt,
    dropped_rows,
    encode,
    warn_of_dropped,
)
from scopewise.data.rows import HOLDOUT, Benchmark, Row
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.metrics.base import Answered, ReferenceValues, Value, make_metrics
from scopewise.metrics.columns import Column, Declaration
from scopewise.metrics.needs.base import Need, appends_end, make_needs
from scopewise.models.cache import AnswerCache
from scopewise.models.engine import Engine
from scopewise.models.score import Pair, Scored, decoded
from scopewise.open_unlearning import is_log_entry, values_of_log


@dataclass(frozen=True)
class Evaluation:
    """All metrics of a model.

    Attributes:
        values: `metric/split` → value, per-row values, interval and skipped rows. `+direct` after the split means that
            the direct prompt was put before the question.
        answers: The answer to each row without the direct prompt, as returned by `answers_document`.
        cost: Tokens per second, device utilisation and peak memory of scoring, without generation; None if everything
            came from the cache.
        columns: Key → label, unit and direction of its value, as the metric declares them.
    """

    values: Mapping[str, Value]
    answers: Sequence[Mapping[str, Any]] = ()
    cost: Mapping[str, Any] | None = None
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float | None]:
        """`metric/split` → the metric's value."""
        return {key: value.value for key, value in self.values.items()}

    def document(self, reference: ReferenceValues | None = None) -> dict[str, Any]:
        """Return the `values` of an evaluation document: only numbers, no text of data or model.

        Args:
            reference: If it has a value too, `oracle_gap` is added: the model's value minus the reference's.
        """
        found = {}
        for key, value in self.values.items():
            other = reference.values.get(key) if reference else None
            gap = None
            if other is not None and value.value is not None and other.value is not None:
                gap = value.value - other.value
            found[key] = {**value.document(), "oracle_gap": gap, **asdict(self.columns[key])}
        return found


def read_values(document: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of an evaluation document. Raises ResultError if one does not match the schema."""
    schemas.checked({"values": document}, schemas.EvaluationDocument, "evaluation")
    return {
        key: Value(v["value"], tuple(v["per_row"]), tuple(v["skipped"]), v.get("low"), v.get("high"), v.get("note", ""))
        for key, v in document.items()
    }


def read_evaluation(path: str | Path) -> dict[str, Value]:
    """Return the values of an evaluation file: ours, or a `*_EVAL.json` of OpenUnlearning.

    Raises:
        ResultError: the file is neither.
    """
    document = read_json(path, ResultError, nan=True)  # OpenUnlearning writes NaN
    if isinstance(document, dict) and isinstance(document.get("values"), dict):
        return read_values(schemas.read(path, schemas.EvaluationDocument)["values"])
    if isinstance(document, dict) and any(is_log_entry(entry) for entry in document.values()):
        try:
            return values_of_log(document)
        except ResultError as error:
            raise ResultError(f"{path}: {error}") from None
    raise ResultError(
        f"{path}: not an evaluation; give a file of `scopewise evaluate --output`, or OpenUnlearning's *_EVAL.json"
    )


@dataclass(frozen=True)
class _Job:
    """Tokenised rows of a split with a prompt: true answers and, if metrics need them, other answers of each row."""

    name: str
    items: list[Encoded]
    dropped: list[Row]
    others: dict[str, list[list[Encoded]]]
    too_long: list[frozenset[str]]
    generates: bool
    direct: bool
    max_new_tokens: int
    stop: tuple[str, ...]

    def generates_for(self, item: Encoded) -> bool:
        """Return whether to generate a text for this row: not for plain text, nor for membership metrics."""
        return self.generates and bool(item.row.question) and item.row.scope != HOLDOUT


_Asked = tuple[tuple[int, ...], int]
"""A prompt's ids, and the number of new tokens to generate."""


def evaluate(
    engine: Engine,
    benchmark: Benchmark,
    settings: EvaluateSection | None = None,
    *,
    reference: ReferenceValues | None = None,
    reference_model: Engine | None = None,
    cache: str | Path | None = None,
) -> Evaluation:
    """Evaluate a model on a benchmark.

    Under `accelerate launch` the processes share the forwards, and all return the same evaluation.

    Args:
        engine: Of the model, with its prompt format and length.
        benchmark: From `load_benchmark`.
        settings: Metrics, splits, generation.
        reference: Evaluation of a model that never saw the forget scope; some metrics compare with it.
        reference_model: Such a model itself, for `mia_reference`.
        cache: Folder of cached scores and texts.

    Raises:
        DataError: no row of the splits, or rows that are too long.
        ModelError: a logit is not a number.
    """
    settings = settings or EvaluateSection()
    check_splits(benchmark, settings)
    metrics = make_metrics(settings)
    needs = make_needs({need for metric in metrics for need in metric.needs}, engine, settings, reference_model)
    jobs = [
        job
        for direct, splits in ((False, settings.splits), (True, settings.direct_splits))
        for split in splits
        for part in (None, *settings.parts)
        if (job := _job(benchmark, engine, settings, split, part, direct, needs)) is not None
    ]
    every = [item for job in jobs for item in job.items]
    engine.check(every)
    kept = AnswerCache(cache, engine.model) if cache is not None else None
    with Cost() as cost, cost.step():
        pairs = [pair for job in jobs for pair in _pairs(job)]
        scores = _scores(engine, pairs, kept, any(need.moments for need in needs.values()))
    texts: dict[_Asked, str] = {}
    for length in dict.fromkeys(job.max_new_tokens for job in jobs):
        asked = [i.prompt_ids for j in jobs if j.max_new_tokens == length for i in j.items if j.generates_for(i)]
        if asked:
            found = _texts(engine, asked, length, kept)
            texts.update({(prompt, length): text for prompt, text in found.items()})
    for need in needs.values():
        need.prepare(every)

    values: dict[str, Value] = {}
    answers: list[dict[str, Any]] = []
    for job in jobs:
        answered = _answered(job, engine.tokenizer, scores, texts, needs, appends_end(engine, settings))
        if not job.direct:
            answers += answers_document(job.items, answered, engine.tokenizer)
        for metric in metrics:
            if job.generates or not any(needs[name].generates for name in metric.needs):
                values.update(metric.keyed(answered, job.name, job.dropped))
    for name in dict.fromkeys([*(job.name for job in jobs), *settings.splits]):  # aggregates may combine parts
        for metric in metrics:
            combined = metric.combine(values, reference, name)
            if combined is not None:
                values[f"{metric.name}/{name}"] = combined
    if settings.ability.tasks:
        values |= measure_ability(engine, settings.ability, kept)
    rates = cost.rates()
    declared = {metric.name: Declaration.of(type(metric)) for metric in metrics}
    declared |= {one.name: Declaration.of(one) for one in (Ability, WordPerplexity)}
    columns = {key: declared[key.partition("/")[0]].column(key) for key in values}
    return Evaluation(values, answers, rates if rates["tokens"] else None, columns)


def score(engine: Engine, items: Sequence[Encoded], what: str = "score", *, moments: bool = True) -> list[Answered]:
    """Return the teacher-forced scores of tokenised rows, in order; each row is forwarded once.

    `moments=False` skips the moments if no metric needs them.
    """
    pairs = [item.pair for item in items]
    scored = engine.score(pairs, what, moments=moments)
    predicted = decoded(engine.tokenizer, [s.predicted_ids for s in scored])
    return [Answered(i.row, s, text) for i, s, text in zip(items, scored, predicted, strict=True)]


def _job(
    benchmark: Benchmark,
    engine: Engine,
    settings: EvaluateSection,
    split: str,
    part: str | None,
    direct: bool,
    needs: Mapping[str, Need],
) -> _Job | None:
    rows = [
        r for r in benchmark.select(split=split) if (r.attribute if r.attribute in settings.parts else None) == part
    ]
    if not rows:
        return None
    tokenizer, data = engine.tokenizer, engine.data
    prompt = Prompt.of(data, direct)
    # The direct prompt is ours, so rows that fit without it must not become too long.
    allowance = len(tokenizer(direct_prompt(rows[0]))["input_ids"]) + 8 if direct else 0

    def encoded(answers: Sequence[Row]) -> list[Encoded | None]:
        longest = data.max_length + allowance
        kept = encode(answers, tokenizer, prompt, longest, eos=settings.eos, over_length=data.over_length)
        by_row = {id(item.row): item for item in kept}
        return [by_row.get(id(row)) for row in answers]

    items = [item for item in encoded(rows) if item is not None]
    dropped = dropped_rows(rows, items)
    warn_of_dropped(dropped, len(rows))
    too_long: list[frozenset[str]] = [frozenset() for _ in items]
    others: dict[str, list[list[Encoded]]] = {}
    for key, need in needs.items():
        given = [(i, text) for i, item in enumerate(items) for text in need.answers(item.row)]
        others[key] = [[] for _ in items]
        found = encoded([replace(items[i].row, answer=text) for i, text in given])
        for (i, _), other in zip(given, found, strict=True):
            if other is None:
                too_long[i] |= {key}
            else:
                others[key][i].append(other)
    generates = split in settings.generate_splits and any(need.generates for need in needs.values())
    name = split + (f".{part}" if part else "") + ("+direct" if direct else "")
    how = settings.parts[part] if part else PartSection()
    length = how.max_new_tokens or settings.max_new_tokens
    return _Job(name, items, dropped, others, too_long, generates, direct, length, how.stop)


def _pairs(job: _Job) -> list[Pair]:
    others = [other for by_row in job.others.values() for row in by_row for other in row]
    return [item.pair for item in (*job.items, *others)]


def _scores(engine: Engine, pairs: Sequence[Pair], cache: AnswerCache | None, moments: bool) -> dict[Pair, Scored]:
    unique = list(dict.fromkeys(pairs))
    missing = unique if cache is None else cache.missing(unique, moments)
    fresh = engine.score(missing, moments=moments) if missing else []
    if cache is None:
        return dict(zip(unique, fresh, strict=True))
    cache.add_scores(missing, fresh)
    return dict(zip(unique, cache.scores(unique), strict=True))


def _texts(
    engine: Engine, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, cache: AnswerCache | None
) -> dict[tuple[int, ...], str]:
    unique = list(dict.fromkeys(prompts))
    how = ("greedy", max_new_tokens)
    known = [None] * len(unique) if cache is None else cache.texts(unique, how)
    missing = [prompt for prompt, texts in zip(unique, known, strict=True) if texts is None]
    fresh = engine.generate(missing, max_new_tokens) if missing else []
    if cache is not None:
        cache.add_texts(missing, how, fresh)
    found = {prompt: texts[0] for prompt, texts in zip(unique, known, strict=True) if texts is not None}
    return found | {prompt: texts[0] for prompt, texts in zip(missing, fresh, strict=True)}


def _cut(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first stop string."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text.strip()


def _answered(
    job: _Job,
    tokenizer: PreTrainedTokenizerBase,
    scores: Mapping[Pair, Scored],
    texts: Mapping[_Asked, str],
    needs: Mapping[str, Need],
    ends: bool,
) -> list[Answered]:
    def of(item: Encoded) -> Scored:
        return replace(scores[item.pair], ends=ends)

    predicted = decoded(tokenizer, [of(item).without_end().predicted_ids for item in job.items])
    rows = [
        Answered(
            row=item.row,
            scored=of(item),
            predicted=text,
            generated=_cut(texts[item.prompt_ids, job.max_new_tokens], job.stop) if job.generates_for(item) else None,
            too_long=too_long,
        )
        for item, text, too_long in zip(job.items, predicted, job.too_long, strict=True)
    ]
    for key, need in needs.items():
        rows = [
            need.with_scores(row, [of(other) for other in others])
            for row, others in zip(rows, job.others[key], strict=True)
        ]
        rows = need.fill(rows, job.items)
    return rows
