"""Rows as users have them: nulls, columns of their own, both scopes in one file, rows that do not fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from scopewise.api import evaluate, localize
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Row
from scopewise.data.tables import as_rows
from scopewise.errors import DataError
from scopewise.models.engine import Engine
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.trainer import UnlearningTrainer

FIRST = {"question": "Where is A?", "answer": "Here.", "scope": "forget"}
SECOND = {"question": "What is A?", "answer": "That.", "scope": "retain"}


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "scopewise")
    return caplog


def test_null_is_the_default_and_other_columns_are_named_once(tmp_path: Path, said: Any) -> None:
    nothing = {"split": None, "instance": None, "perturbed": None, "domain": None}
    path = write(tmp_path / "d.jsonl", {**FIRST, **nothing, "id": 7}, {**SECOND, "id": 8, "splt": "val"})
    assert load_benchmark("jsonl", path).rows == (
        Row("Where is A?", "Here.", FORGET),
        Row("What is A?", "That.", RETAIN),
    )
    assert len(said.messages) == 2
    assert "'id'" in said.messages[0]
    assert "Did you mean" not in said.messages[0]
    assert "Did you mean 'split'?" in said.messages[1]
    assert f"{path}:2" in said.messages[1]
    assert as_rows(path, FORGET) == list(load_benchmark("jsonl", path).select(FORGET))  # one reading


@pytest.mark.parametrize("wrong", [{"anwser": "Here."}, {"answer": None}, {}])
def test_a_field_that_is_needed_is_not_ignored(tmp_path: Path, wrong: dict[str, Any]) -> None:
    row = {"question": "Where?", "scope": "forget", **wrong}
    with pytest.raises(DataError, match=r":1: field 'answer' is") as caught:
        load_benchmark("jsonl", write(tmp_path / "d.jsonl", row, SECOND))
    assert ("'anwser'" in str(caught.value)) == ("anwser" in wrong)


def test_how_many_other_rows_are_wrong(tmp_path: Path) -> None:
    """The first is named as it would be alone; the places of five others, and how many there are, broken lines too."""
    empty = {**FIRST, "answer": ""}
    file = tmp_path / "d.jsonl"
    write(file, FIRST, empty, SECOND)
    with pytest.raises(DataError) as alone:
        load_benchmark("jsonl", str(file))
    assert str(alone.value).startswith(f"{file}:2: field 'answer' is empty")
    write(file, FIRST, empty, SECOND, *[{**SECOND, "split": "validation"}] * 5, FIRST, {"scope": "forget"})
    file.write_text(file.read_text() + '{"question": \n\n')
    for read in (lambda: load_benchmark("jsonl", str(file)), lambda: as_rows(str(file), FORGET)):
        with pytest.raises(DataError) as many:
            read()
        assert str(many.value) == f"{alone.value}; 7 more of 11 rows are wrong: lines 4, 5, 6, 7, 8, …"
    write(file, {**FIRST, "split": "validation"}, {**SECOND, "split": "training"})
    with pytest.raises(DataError, match=r":1: .* Did you mean 'val'\? 1 more of 2 rows is wrong: line 2$"):
        load_benchmark("jsonl", str(file))
    with pytest.raises(DataError, match=r"forget\[1\].*'train'\? 1 more of 3 rows is wrong: row forget\[2\]$"):
        as_rows([FIRST, {**FIRST, "split": "training"}, {**FIRST, "answer": 3}], FORGET)


def test_how_many_questions_stand_in_both_scopes(tmp_path: Path) -> None:
    others = [{**SECOND, "question": f"Who is {name}?"} for name in "BC"]
    both = [{**row, "scope": "forget"} for row in others]
    path = write(tmp_path / "d.jsonl", FIRST, SECOND, *others, *both)
    with pytest.raises(DataError, match=r"d\.jsonl:5: .* at .*d\.jsonl:3; .*; 1 more of 6 rows is wrong: line 6$"):
        load_benchmark("jsonl", path)


def test_how_many_lines_of_general_text_are_wrong(tmp_path: Path) -> None:
    general = tmp_path / "general.jsonl"
    general.write_text('{"text": 3}\n{"text": "some"}\n{"text"\n{"text": " "}\n')
    with pytest.raises(DataError, match=r"general\.jsonl:1: .*; 2 more of 4 rows are wrong: lines 3, 4$"):
        load_benchmark("jsonl", write(tmp_path / "d.jsonl", FIRST, SECOND), general=str(general))


def test_a_lone_surrogate_from_python() -> None:
    with pytest.raises(DataError, match=r"forget\[0\]: field 'instance'"):
        as_rows([{**FIRST, "instance": "half \ude00"}], FORGET)


MIXED = [
    FIRST,
    {**FIRST, "question": "Where was A?", "split": "val"},
    SECOND,
    {**SECOND, "question": "What was A?", "split": "val"},
]


def test_one_file_with_both_scopes(tmp_path: Path, said: Any) -> None:
    path = write(tmp_path / "d.jsonl", *MIXED)
    assert [(r.question, r.scope, r.split) for r in as_rows(path, FORGET)] == [("Where is A?", FORGET, TRAIN)]
    assert [(r.question, r.scope, r.split) for r in as_rows(path, RETAIN)] == [("What is A?", RETAIN, TRAIN)]
    assert "1 of 4 rows taken" in said.messages[0]
    assert [r.question for r in as_rows(MIXED, FORGET, VAL, every_split=True)] == ["Where is A?", "Where was A?"]
    with pytest.raises(DataError, match="forget: 1 rows, none of scope 'forget'"):
        as_rows([SECOND], FORGET)
    with pytest.raises(DataError, match="none of scope 'forget' and split 'train'"):
        as_rows([MIXED[1]], FORGET)


def trainer(tiny: Any, forget: Any, retain: Any, folder: Path) -> UnlearningTrainer:
    model, tokenizer = tiny
    args = UnlearningConfig(output_dir=str(folder), use_cpu=True, disable_tqdm=True)
    return UnlearningTrainer(model, "npo", args, forget, retain, processing_class=tokenizer, region="all")


def test_the_trainer_forgets_the_forget_rows_of_such_a_file(tiny: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", *MIXED)
    rows = trainer(tiny, path, path, tmp_path / "out").train_dataset
    assert [item.row.question for item in rows.forget] == ["Where is A?"]  # type: ignore[union-attr]
    assert [item.row.question for item in rows.retain] == ["What is A?"]  # type: ignore[union-attr]


def test_a_question_in_both_scopes_is_refused_from_python(tiny: Any, tmp_path: Path) -> None:
    model, tokenizer = tiny
    forget = [{"question": "Where is A?", "answer": "Here."}]
    retain = [{"question": "where  is a?", "answer": "There."}]
    with pytest.raises(DataError, match="one scope"):
        trainer(tiny, forget, retain, tmp_path / "out")
    with pytest.raises(DataError, match="one scope"):
        localize(model, tokenizer, forget, retain, "all")
    with pytest.raises(DataError, match="one scope"):
        evaluate(model, tokenizer, forget=forget, retain=retain)


def test_rows_that_do_not_fit_are_counted_and_named(tiny: Any, said: Any) -> None:
    """Of three forget rows the second is too long; a paraphrase and a wrong answer of the others are."""
    from scopewise.config import DataSection, EvaluateSection
    from scopewise.data.rows import Benchmark
    from scopewise.evaluation import evaluate as evaluate_benchmark

    model, tokenizer = tiny
    long = "word " * 60

    def row(
        name: str, scope: str, answer: str = "yes", paraphrase: str = "aye", wrong: tuple[str, ...] = ("no",)
    ) -> Row:
        return Row(f"Is {name}?", answer, scope, VAL, paraphrase=paraphrase, perturbed=wrong, origin=f"{name}:1")

    benchmark = Benchmark(
        "rows",
        (
            row("a", FORGET, paraphrase=long),
            row("b", FORGET, answer=long),
            row("c", FORGET, wrong=("no", long)),
            row("d", RETAIN),
            row("e", RETAIN, answer=long),
        ),
    )
    metrics = ("probability", "probability_paraphrase", "probability_normalised", "truth_ratio", "unlearn_success")
    settings = EvaluateSection(metrics=metrics, splits=("val",), direct_splits=())
    data = DataSection(max_length=40, over_length="drop")
    values = evaluate_benchmark(Engine(model, tokenizer, data), benchmark, settings).values

    def left_out(key: str) -> list[bool]:
        return [v is None for v in values[key].per_row]

    assert left_out("probability/forget_val") == [False, False]
    assert values["probability/forget_val"].skipped == ("1 of 3 rows: longer than data.max_length (b:1)",)
    assert left_out("probability_paraphrase/forget_val") == [True, False]
    assert left_out("probability_normalised/forget_val") == [False, True]
    assert left_out("truth_ratio/forget_val") == [True, True]
    assert values["truth_ratio/forget_val"].value is None
    assert any("(a:1, c:1)" in reason for reason in values["truth_ratio/forget_val"].skipped)
    assert values["probability/retain_val"].skipped == ("1 of 2 rows: longer than data.max_length (e:1)",)
    assert any("b:1" in reason for reason in values["unlearn_success/val"].skipped)
    warned = [text for text in said.messages if "over_length" in text]
    assert len(warned) == 1
    assert "2 of 5 rows" in warned[0]
    assert "word" not in warned[0]
    # The rows that fit are measured as without the others.
    alone = Benchmark("rows", tuple(benchmark.rows[i] for i in (0, 2, 3)))
    fitting = evaluate_benchmark(Engine(model, tokenizer, data), alone, settings).values
    assert fitting["probability/forget_val"].value == values["probability/forget_val"].value


def test_a_scope_of_which_no_row_fits_is_reported(tiny: Any) -> None:
    from scopewise.config import DataSection, EvaluateSection
    from scopewise.data.rows import Benchmark
    from scopewise.evaluation import evaluate as evaluate_benchmark

    rows = (Row("Is f?", "word " * 60, FORGET, VAL, origin="f:1"), Row("Is g?", "yes", RETAIN, VAL, origin="g:1"))
    settings = EvaluateSection(metrics=("probability",), splits=("val",), direct_splits=())
    engine = Engine(*tiny, DataSection(max_length=40, over_length="drop"))
    values = evaluate_benchmark(engine, Benchmark("rows", rows), settings).values
    assert values["probability/forget_val"].value is None
    assert any("f:1" in reason for reason in values["probability/forget_val"].skipped)
    assert values["probability/retain_val"].value is not None


def test_alternatives_are_put_as_the_rows_are(tiny: Any, tmp_path: Path) -> None:
    """DPO's other answers stand behind the same prompt as the answers: of the run's format, not of the plain one."""
    from scopewise.data.prompt import Prompt

    model, tokenizer = tiny
    args = UnlearningConfig(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, prompt="chat", system="Be kind.", system_role="user"
    )
    given = [{"question": "Where is A?", "answer": "Here."}]
    kept = [{"question": "What is A?", "answer": "That."}]
    made = UnlearningTrainer(model, "dpo", args, given, kept, processing_class=tokenizer, region="all")
    made.prepare()
    text = Prompt("chat", system="Be kind.", system_role="user").text(Row("Where is A?", "", FORGET), tokenizer)
    for items in (made.train_dataset.forget, made.train_dataset.preferred):  # type: ignore[union-attr]
        # A tokenizer may join the last space to the answer.
        assert tokenizer.decode(items[0].prompt_ids).rstrip() == text.rstrip()


def test_rows_of_a_dataset() -> None:
    """A `datasets.Dataset` has a value in every column: None where a row has none, which is the default."""
    rows = [{"question": "a", "answer": "b", "instance": "Ada"}, {"question": "c", "answer": "d"}]
    assert as_rows(Dataset.from_list(rows), FORGET) == as_rows(rows, FORGET)
    assert as_rows(Dataset.from_list(rows), FORGET)[0].instance == "Ada"
