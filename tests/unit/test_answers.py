"""What an evaluation keeps of each answer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from scopewise.answers import token_texts
from scopewise.config import EvaluateSection
from scopewise.data.prompt import encode
from scopewise.data.rows import Benchmark, Row
from scopewise.evaluation import evaluate, score
from scopewise.models.engine import Engine


@pytest.mark.parametrize("text", ["She lives at 3 Mill Lane.", "naïve café, 東京 🙂!", " two  spaces ", "<script>"])
def test_texts_of_tokens_make_up_the_text(text: str, tiny: tuple[Any, Any]) -> None:
    ids = tiny[1](text, add_special_tokens=False)["input_ids"]
    found = token_texts(tiny[1], ids)
    assert len(found) == len(ids)
    assert "".join(found) == tiny[1].decode(ids)


@pytest.mark.parametrize("eos", [False, True])
def test_answers_have_the_probability_of_each_token(
    eos: bool, tiny: tuple[Any, Any], forget: list[Row], retain: list[Row]
) -> None:
    model, tokenizer = tiny
    rows = (*forget[:3], *retain[:3])
    settings = EvaluateSection(
        metrics=("unlearn_success", "rouge_l_generated"),
        splits=("train",),
        generate_splits=("train",),
        direct_splits=("train",),
        max_new_tokens=3,
        eos=eos,
    )
    found = evaluate(Engine(model, tokenizer), Benchmark("some", rows), settings).answers
    assert [answer["question"] for answer in found] == [
        row.question for row in rows
    ]  # the direct prompt's are not kept
    scored = score(Engine(model, tokenizer), encode(rows, tokenizer))
    for answer, expected in zip(found, scored, strict=True):
        assert answer["probabilities"] == [pytest.approx(math.exp(x), abs=5.1e-4) for x in expected.log_probs]
        assert len(answer["tokens"]) == len(answer["probabilities"])
        assert "".join(answer["tokens"]).strip() == answer["answer"]
    assert any(answer["generated"] for answer in found)
