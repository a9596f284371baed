"""Stage 4: all metrics on all splits, with each row forwarded once per prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from scopewise import registry
from scopewise.config import DataSection, EvaluateSection
from scopewise.data.prompt import Prompt, direct_prompt, encode
from scopewise.data.rows import Benchmark
from scopewise.metrics.base import Metric, Value
from scopewise.models.score import generate, score, with_generated


@dataclass(frozen=True)
class Evaluation:
    """Every metric of a model.

    Attributes:
        values: `metric/split` → value, per-row values and what was skipped. `+direct` after the split means that the
            direct prompt stood before the question.
    """

    values: Mapping[str, Value]

    @property
    def metrics(self) -> dict[str, float | None]:
        """`metric/split` → the measure."""
        return {key: value.value for key, value in self.values.items()}

    def document(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds: numbers alone, no text of the data or of the model."""
        return {key: asdict(value) for key, value in self.values.items()}


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    settings: EvaluateSection | None = None,
    data: DataSection | None = None,
    description: str = "evaluate",
) -> Evaluation:
    """Measure a model on a benchmark.

    Args:
        model: A causal LM, with or without adapters.
        tokenizer: Its tokenizer.
        benchmark: As `load_benchmark` gives it.
        settings: Metrics, splits, generation.
        data: Prompt format and length.
        description: Of the progress bars.

    Raises:
        DataError: rows that do not fit the length (with the direct prompt they may be longer than in training).
    """
    settings, data = settings or EvaluateSection(), data or DataSection()
    metrics: list[Metric] = [registry.lookup("metrics", name)() for name in settings.metrics]
    values: dict[str, Value] = {}
    for direct, splits in ((False, settings.splits), (True, settings.direct_splits)):
        prompt = Prompt(data.prompt, direct)
        for split in splits:
            rows = benchmark.select(split=split)
            if not rows:
                continue
            # The direct prompt is the evaluator's own text: it must not make rows too long that fit without it.
            allowance = len(tokenizer(direct_prompt(rows[0]))["input_ids"]) + 8 if direct else 0
            items = encode(rows, tokenizer, prompt, data.max_length + allowance, over_length=data.over_length)
            name = f"{split}+direct" if direct else split
            answered = score(model, tokenizer, items, settings.max_tokens, f"{description}: score {name}")
            generates = split in settings.generate_splits and any(m.generates for m in metrics)
            if generates:
                texts = generate(
                    model, tokenizer, items, settings.max_new_tokens, description=f"{description}: generate {name}"
                )
                answered = with_generated(answered, texts)
            for metric in metrics:
                if generates or not metric.generates:
                    values.update(metric.keyed(answered, name))
    return Evaluation(values)
