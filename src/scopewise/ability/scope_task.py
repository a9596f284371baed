"""A two-scope benchmark as a task of lm-evaluation-harness, with the metrics of `scopewise evaluate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, load_dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from transformers import PreTrainedTokenizerBase

from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Prompt, encode
from scopewise.data.rows import FORGET, RETAIN, SCOPES, VAL, Row, make_row, read_json_lines
from scopewise.errors import ConfigError, DataError
from scopewise.metrics.base import Answered, make_metric
from scopewise.models.load import load_tokenizer
from scopewise.models.score import Scored

_METRICS = ("unlearn_success", "retention_success", "probability", "rouge_l_generated")
_TOFU = ("forget01", "forget05", "forget10")


class TokenRequest(Instance):
    """Request for log P of one answer token given the ids before it: (text before it, ids before it, its id).

    The harness requests continuations as text and tokenizes them again, which moves white space at the end of a prompt
    into the answer. Passing ids avoids that. They go, as triples, to the method for tokenized requests that every model
    of the harness with a tokenizer has.
    """

    def __init__(self, doc: Mapping[str, Any], index: int, **kwargs: Any) -> None:
        """Make the request for answer token `index` of a document."""
        ids, at = [*doc["prompt_ids"], *doc["answer_ids"]], len(doc["prompt_ids"]) + index
        triple = (f"{doc['text']} [{index}]", ids[:at], ids[at : at + 1])
        super().__init__("loglikelihood", dict(doc), triple, index, **kwargs)
        self.request_type = "_loglikelihood_tokens"  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return iter(self.arguments)

    def __getitem__(self, index: int) -> Any:
        return self.arguments[index]


class ScopeTask(ConfigurableTask):
    """Unlearn and Retention Success, probability and ROUGE-L of a benchmark, for any model of the harness.

    One request per answer token asks whether it is the arg-max under teacher forcing, and one more generates a text.
    The values are computed as in our own metrics. This takes one forward per answer token, where `scopewise evaluate`
    takes one per answer.

    Settings, in the task's `metadata` or from `lm_eval --metadata`:
        benchmark, path, domain, split: The rows. `benchmark` is a name from `scopewise list benchmarks`, or `tofu`,
            whose `domain` is forget01, forget05 or forget10. `path` may map benchmarks to paths: {"knowundo": …,
            "tofu": …}.
        prompt, system, system_role, max_length: As in the `data` section of a run file; longer rows are refused.
        max_new_tokens: Of the generated text; 0 generates none.
        tokenizer: Of the model; default: that of `--model_args pretrained=…`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Load the rows and the tokenizer. Raises ConfigError without a tokenizer, DataError for the rows."""
        given = {key: value for key, value in config.items() if key != "class"}
        super().__init__(
            config={
                **given,
                "custom_dataset": _documents,
                "test_split": "test",
                "num_fewshot": 0,
                "output_type": "loglikelihood",
                "doc_to_text": "{{text}}",
                "doc_to_target": "{{answer}}",
                "metric_list": [],
            }
        )

    def construct_requests(self, doc: Mapping[str, Any], ctx: Any, **kwargs: Any) -> list[Instance]:
        """Return a request for each answer token, and one for the generated text."""
        if kwargs.pop("apply_chat_template", False):
            raise ConfigError(
                f"{self.config.task}: --apply_chat_template; the prompt is the benchmark's own; for a chat give "
                """--metadata '{"prompt": "chat"}' instead"""
            )
        kwargs.pop("chat_template", None)
        requests: list[Instance] = [TokenRequest(doc, k, **kwargs) for k in range(len(doc["answer_ids"]))]
        new = int(self.config.metadata.get("max_new_tokens", 64))
        if new:
            settings = {"until": [], "max_gen_toks": new, "do_sample": False}
            requests.append(
                Instance("generate_until", dict(doc), (doc["text"], settings), len(requests), **kwargs),
            )
        return requests

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the metrics of one row, by name, with the scope for metrics that have a value per scope."""
        tokens = results[: len(doc["answer_ids"])]
        if not all(math.isfinite(log_p) or log_p == -math.inf for log_p, _ in tokens):
            raise DataError(f"{self.config.task}: a logit is not a number; check the model's weights and dtype")
        text = results[len(tokens)].strip() if len(results) > len(tokens) else None
        scored = Scored(tuple(log_p for log_p, _ in tokens), tuple(hit for _, hit in tokens))
        row = Row(doc["question"], doc["answer"], doc["scope"])
        found: dict[str, Any] = {}
        for name in _METRICS:
            if name != "rouge_l_generated" or text is not None:
                for key, value in make_metric(name).keyed([Answered(row, scored, "", text)], "").items():
                    if value.value is not None:
                        found[key.replace("/", "_").rstrip("_")] = value.value
        success = found["unlearn_success" if row.scope == FORGET else "retention_success"]
        return {**found, "average_success": (row.scope, success)}

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], float]]:
        """Return the aggregations: the mean over rows, and for Average Success the mean of both scopes' means."""
        each = {f"{name}_{scope}" for name in _METRICS[2:] for scope in SCOPES}
        return dict.fromkeys({*_METRICS[:2], *each}, _mean) | {"average_success": _average}

    def higher_is_better(self) -> dict[str, bool]:
        """Return the directions; metrics with a value per scope should be low on the forget scope."""
        return {name: not name.endswith(f"_{FORGET}") for name in self.aggregation()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _average(values: Sequence[tuple[str, float]]) -> float:
    scopes = {scope for scope, _ in values}
    return _mean([_mean([v for s, v in values if s == scope]) for scope in scopes])


def _documents(
    *,
    benchmark: str,
    domain: str | None = None,
    path: str | Mapping[str, str] | None = None,
    split: str = VAL,
    prompt: str = "plain",
    system: str | None = None,
    system_role: Literal["system", "user"] = "system",
    max_length: int = 256,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    pretrained: Any = None,
    **_: Any,
) -> dict[str, Dataset]:
    """Return the tokenized rows; the harness calls this with the task's metadata and the model's arguments."""
    named = tokenizer or pretrained
    if named is None:
        raise ConfigError(
            "lm_eval: the task needs the model's tokenizer; give --model_args pretrained=MODEL, or "
            """--metadata '{"tokenizer": "MODEL"}'"""
        )
    if isinstance(path, Mapping):
        path = path.get(benchmark)
    known = named if isinstance(named, PreTrainedTokenizerBase) else load_tokenizer(str(named))
    if benchmark == "tofu":
        rows = _tofu(domain or "forget10", path)
    else:
        rows = load_benchmark(benchmark, path, domain).select(split=split)
    shape = Prompt(prompt, system=system, system_role=system_role)
    items = encode([row for row in rows if row.scope in SCOPES], known, shape, max_length)
    if not items:
        raise DataError(f"lm_eval: {benchmark} has no row of split {split!r}; give another split")
    documents = [
        {
            "question": item.row.question,
            "answer": item.row.answer,
            "scope": item.row.scope,
            "text": shape.text(item.row, known),
            "prompt_ids": list(item.prompt_ids),
            "answer_ids": list(item.answer_ids),
        }
        for item in items
    ]
    return {"test": Dataset.from_list(documents)}


def _tofu(domain: str, path: str | None) -> list[Row]:
    """Return the forget rows, and the retain rows that are evaluated (those of `retain_perturbed`).

    Source: hub dataset locuslab/TOFU (Maini et al., arXiv:2401.06121), or a folder with its files as JSON lines.
    """
    if domain not in _TOFU:
        raise ConfigError(f"lm_eval: TOFU has {', '.join(_TOFU)}, not {domain!r}")
    rows = []
    for name, scope in ((f"{domain}_perturbed", FORGET), ("retain_perturbed", RETAIN)):
        if path is not None:
            file = Path(path) / f"{name}.jsonl"
            records = [(f"{file}:{number}", record) for number, record in read_json_lines(file)]
        else:
            try:
                table = load_dataset("locuslab/TOFU", name, split="train")
            except Exception as error:  # the hub client raises many classes, which all mean the same to the user
                raise DataError(
                    f"locuslab/TOFU ({name}): the hub failed with {type(error).__name__}; save it as {name}.jsonl on a "
                    """machine with a connection, and give its folder: --metadata '{"path": "FOLDER"}'"""
                ) from error
            records = [(f"locuslab/TOFU/{name}[{i}]", record) for i, record in enumerate(table)]
        for where, record in records:
            kept = (
                {k: v for k, v in record.items() if k in ("question", "answer")} if isinstance(record, dict) else record
            )
            rows.append(make_row(kept, where, scope=scope, split=VAL))
    return rows
