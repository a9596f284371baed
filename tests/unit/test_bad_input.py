"""What an evaluation meets in the wild: no rows, one token, logits that are not finite, a model that never stops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from engines import forward_of
from scopewise.api import evaluate
from scopewise.config import EvaluateSection
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, VAL, Benchmark, Row
from scopewise.errors import DataError, ModelError
from scopewise.evaluation import evaluate as evaluate_benchmark
from scopewise.metrics import METRICS
from scopewise.models.engine import Engine
from scopewise.models.generate import generate
from scopewise.models.score import score_pairs
from scopewise.registry import lookup

EVERY = tuple(METRICS)


def rows(answers: dict[str, str], count: int = 3) -> Benchmark:
    found = [
        Row(f"What of {scope} {i}?", answer, scope, VAL, paraphrase=answer, perturbed=("no", "never, I think"))
        for scope, answer in answers.items()
        for i in range(count)
    ]
    return Benchmark("rows", tuple(found))


def measured(model: Any, tokenizer: Any, benchmark: Benchmark, **settings: Any) -> dict[str, Any]:
    """Every metric there is; each value is finite, or says what was skipped."""
    given = {"metrics": EVERY, "splits": ("val",), "direct_splits": (), "max_new_tokens": 6, **settings}
    values = evaluate(model, tokenizer, benchmark, max_length=400, **given).values
    for key, value in values.items():
        if value.value is None:
            assert value.skipped, key
        else:
            assert math.isfinite(value.value), key
        assert all(v is None or math.isfinite(v) for v in (value.low, value.high, *value.per_row)), key
    return dict(values)


def test_an_empty_set(tiny: Any, forget: Any) -> None:
    model, tokenizer = tiny
    with pytest.raises(DataError, match="no row"):
        evaluate(model, tokenizer, forget=[], retain=forget)
    train = Benchmark("mine", tuple(forget))
    with pytest.raises(DataError, match=r"evaluate.splits: val; mine has rows of train; measure a split that it has"):
        evaluate(model, tokenizer, train, splits=("val",), direct_splits=())
    with pytest.raises(DataError, match="no split"):
        evaluate_benchmark(Engine(model, tokenizer), Benchmark("none", ()), EvaluateSection())
    assert score_pairs(forward_of(model), []) == []
    assert generate(forward_of(model), tokenizer, []) == []


@pytest.mark.parametrize("name", list(METRICS))
def test_no_rows_are_no_number(name: str) -> None:
    metric = lookup("metrics", name)()
    if "measure" in dir(metric):
        value = metric.measure([])
        assert value.value is None
        assert value.skipped
    else:
        found = metric.combine({}, None, "val")
        assert found is None or found.value is None


def test_an_empty_answer_has_nothing_to_score_and_an_empty_prompt_is_refused(tiny: Any) -> None:
    assert score_pairs(forward_of(tiny[0]), [((5, 6), ())])[0].log_probs == ()
    with pytest.raises(ModelError, match="evaluate: a prompt "):
        score_pairs(forward_of(tiny[0]), [((), (5,))])


@pytest.mark.parametrize("eos", [False, True])
def test_answers_of_one_token(tiny: Any, eos: bool) -> None:
    model, tokenizer = tiny
    assert len(tokenizer("a")["input_ids"]) == 1
    values = measured(model, tokenizer, rows({FORGET: "a", RETAIN: "b", HOLDOUT: "c"}), eos=eos)
    assert len(values["unlearn_success/val"].known) == 3
    assert {*values["unlearn_success/val"].known, *values["retention_success/val"].known} <= {0.0, 100.0}


class Biased(torch.nn.Module):
    """A head whose logits are shifted: by infinity for what must never, or must always, be said."""

    def __init__(self, head: torch.nn.Module, shift: torch.Tensor) -> None:
        super().__init__()
        self.head, self.shift = head, shift
        self.weight = head.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden) + self.shift


def biased(model: Any, token: int | None, by: float) -> Any:
    shift = torch.zeros(model.config.vocab_size)
    shift[slice(None) if token is None else token] = by
    model.set_output_embeddings(Biased(model.lm_head, shift))
    return model


def test_tokens_of_probability_zero_are_legitimate(tiny: Any) -> None:
    """A token that can never be said has log P of minus infinity: nothing else becomes NaN, and the row is counted."""
    model, tokenizer = tiny
    (never,) = tokenizer("a")["input_ids"]
    values = measured(biased(model, never, -math.inf), tokenizer, rows({FORGET: "a", RETAIN: "b", HOLDOUT: "c"}))
    assert values["unlearn_success/val"].value == 100.0
    assert values["probability/forget_val"].value == 0.0
    assert values["perplexity/forget_val"].value is None
    assert "3 of 3 rows" in values["perplexity/forget_val"].skipped[0]
    assert values["perplexity/retain_val"].value > 1


@pytest.mark.parametrize(("token", "by"), [(7, math.inf), (7, math.nan), (None, -math.inf)])
def test_a_logit_that_is_not_finite_is_an_error(tiny: Any, encoded: Any, token: int | None, by: float) -> None:
    model, tokenizer = tiny
    biased(model, token, by)
    with pytest.raises(ModelError, match="a logit is not a number; check the model's weights and dtype"):
        score_pairs(forward_of(model), [((5, 6), (8, 9))])
    if math.isnan(by):
        with pytest.raises(ModelError, match="generate: a logit is not a number"):
            generate(forward_of(model), tokenizer, [encoded[0][0].prompt_ids], 3)


def test_a_model_that_never_stops_is_measured(tiny: Any, forget: Any, retain: Any) -> None:
    """It says one token for ever: the text ends at `max_new_tokens`, and is called degenerate."""
    model, tokenizer = tiny
    (forever,) = tokenizer("a")["input_ids"]
    biased(model, forever, 1e4)
    some = (*(replace(r, split=VAL) for r in (*forget[:2], *retain[:2])),)
    values = measured(model, tokenizer, Benchmark("rows", some), max_new_tokens=12)
    assert values["repetition/forget_val"].value is None or values["repetition/forget_val"].value > 0
    assert generate(forward_of(model), tokenizer, [(5, 6)], 12) == [["a" * 12]]
