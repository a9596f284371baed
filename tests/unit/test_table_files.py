"""Rows in the files that users have: every kind of file, other libraries' columns, and what is refused."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset, DatasetDict

from scopewise.attacks.alone import read_rows
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Row
from scopewise.data.tables import as_rows, read_table
from scopewise.errors import ConfigError, DataError

RECORDS = [
    {
        "question": 'Where is "A"?',
        "answer": "Here,\nthere; or so.",
        "scope": "forget",
        "split": None,
        "instance": "Åsa",
    },
    {"question": "What is A?", "answer": "=2+3", "scope": "retain", "split": "val", "instance": None},
]
ROWS = [
    Row('Where is "A"?', "Here,\nthere; or so.", FORGET, instance="Åsa"),
    Row("What is A?", "=2+3", RETAIN, VAL),
]


def lines(records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write(folder: Path, name: str) -> Path:
    """The records as a file of the kind that its name ends in, written by another library where there is one."""
    path, frame = folder / name, pandas.DataFrame(RECORDS)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(write(folder, name.removesuffix(".gz")).read_bytes()))
    elif name.endswith((".csv", ".tsv")):
        frame.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ";" if "semicolon" in name else ",")
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name == "one.json":
        path.write_text(json.dumps(RECORDS, indent=1))
    elif name == "folder":
        Dataset.from_list(RECORDS).save_to_disk(str(path))
    else:
        path.write_text(lines(RECORDS))
    return path


KINDS = ["d.jsonl", "d.ndjson", "d", "one.json", "lines.json", "d.csv", "semicolon.csv", "d.tsv", "d.parquet", "folder"]


@pytest.mark.parametrize("name", [*KINDS, "d.jsonl.gz", "one.json.gz", "d.csv.gz"])
def test_every_kind_of_file_has_the_same_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    assert read_table(path) == ROWS
    assert all(row.origin.startswith(f"{path}:") for row in read_table(path))


def test_a_benchmark_of_a_table(tmp_path: Path) -> None:
    records = [{"question": f"Q {scope}", "answer": "A", "scope": scope} for scope in (FORGET, RETAIN)]
    pandas.DataFrame(records).to_csv(tmp_path / "d.csv", index=False)
    assert [row.scope for row in load_benchmark("jsonl", str(tmp_path / "d.csv")).rows] == [FORGET, RETAIN]
    (tmp_path / "d.csv").write_text("question,answer\nQ,A\n")
    with pytest.raises(DataError, match="field 'scope' is missing"):  # a benchmark assumes no scope
        load_benchmark("jsonl", str(tmp_path / "d.csv"))


SHAPES: list[dict[str, Any]] = [
    {"prompt": "Q", "completion": "A"},
    {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]},
    {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
        ]
    },
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    {"instruction": "Q", "input": "", "output": "A"},
    {"question": "Q", "response": "A", "answer": "no"},
]


@pytest.mark.parametrize("record", SHAPES)
@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet", "d.csv", "folder"])
def test_columns_of_other_libraries(tmp_path: Path, record: dict[str, Any], name: str) -> None:
    mapping = {"answer": "response"} if "response" in record else {}
    path = tmp_path / name
    if name == "d.jsonl":
        path.write_text(lines([record]))
    elif name == "folder":
        Dataset.from_list([record]).save_to_disk(str(path))
    elif name == "d.parquet":
        pandas.DataFrame([record]).to_parquet(path)
    else:
        cells = {key: json.dumps(value) if isinstance(value, list) else value for key, value in record.items()}
        pandas.DataFrame([cells]).to_csv(path, index=False)
    assert read_table(path, mapping) == [Row("Q", "A", FORGET)]


def test_alpaca_input_follows_the_instruction_and_a_system_message_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "scopewise")
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "Name it.", "input": "A cat", "output": "Cat"}]))
    assert read_table(tmp_path / "a.json")[0].question == "Name it.\nA cat"
    assert not caplog.messages
    turns = [{"role": r, "content": c} for r, c in (("system", "Be kind."), ("user", "Q"), ("assistant", "A"))]
    (tmp_path / "b.jsonl").write_text(lines([{"messages": turns}]))
    assert read_table(tmp_path / "b.jsonl") == [Row("Q", "A", FORGET)]
    assert "column 'system' is no field of a row" in caplog.messages[0]


def test_names_and_attributes_without_questions(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("person,attribute,value\nAda King,birth_date,1 May\n")
    (row,) = read_table(tmp_path / "d.csv", {"instance": "person", "answer": "value"})
    assert row == Row(
        "What is the birth date of Ada King?", "1 May", FORGET, instance="Ada King", attribute="birth_date"
    )


def test_scope_is_forget_where_no_row_states_one(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(lines([{"question": "Q", "answer": "A"}, {"question": "R", "answer": "B", "scope": "retain"}]))
    with pytest.raises(DataError, match=r"d\.jsonl:1: field 'scope' is missing"):
        read_table(path)


def test_law_gives_the_scope_of_an_attribute(tmp_path: Path) -> None:
    """The row's own scope comes first; an attribute that the law does not name has none."""
    facts = [("email", None), ("E-Mail", None), ("awards", None), ("awards", "forget")]
    records = [{"question": f"Q{i}", "answer": "A", "attribute": a, "scope": s} for i, (a, s) in enumerate(facts)]
    path = tmp_path / "d.jsonl"
    path.write_text(lines(records))
    law = {"email": FORGET, "e-mail": FORGET, "awards": RETAIN}
    assert [row.scope for row in read_table(path, law=law)] == [FORGET, FORGET, RETAIN, FORGET]
    with pytest.raises(DataError, match=r"d\.jsonl:1: field 'scope' is null.*1 more of 4 rows is wrong: line 2"):
        read_table(path, law={"awards": RETAIN})


def test_splits_of_a_datasets_folder(tmp_path: Path) -> None:
    def saved(**splits: list[dict[str, Any]]) -> Path:
        path = tmp_path / "-".join(splits)
        DatasetDict({name: Dataset.from_list(records) for name, records in splits.items()}).save_to_disk(str(path))
        return path

    plain = [{"question": "Q", "answer": "A"}]
    path = saved(train=plain, test=plain)
    assert [(row.scope, row.split, row.origin) for row in read_table(path)] == [
        (FORGET, TRAIN, f"{path}/train:row 1"),
        (FORGET, VAL, f"{path}/test:row 1"),
    ]
    assert [row.scope for row in read_table(saved(forget=plain, retain=[{"question": "R", "answer": "A"}]))] == [
        FORGET,
        RETAIN,
    ]
    with pytest.raises(DataError, match=r"the split 'trian' is unknown; .* Did you mean 'train'\?"):
        read_table(saved(trian=plain))


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "jsonl.gz", "parquet", "messages"])
def test_a_table_is_read_alike_wherever_rows_are_taken(tmp_path: Path, kind: str) -> None:
    """By `forget`, by the benchmark `jsonl`, in Python and by `attack --rows`."""
    given = [
        {"question": "Where is A?", "answer": "In B", "scope": FORGET},
        {"question": "R", "answer": "S", "scope": RETAIN},
    ]
    path = tmp_path / f"d.{'jsonl' if kind == 'messages' else kind}"
    match kind:
        case "csv" | "tsv":
            mark = "," if kind == "csv" else "\t"
            path.write_text(
                "\n".join(mark.join(row) for row in (list(given[0]), *(list(row.values()) for row in given)))
            )
        case "json":
            path.write_text(json.dumps(given))
        case "jsonl":
            path.write_text(lines(given))
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines(given).encode()))
        case "parquet":
            pandas.DataFrame(given).to_parquet(path)
        case "messages":
            said = [[("user", row["question"]), ("assistant", row["answer"])] for row in given]
            turns = [[{"role": role, "content": text} for role, text in one] for one in said]
            path.write_text(
                lines([{"messages": one, "scope": row["scope"]} for one, row in zip(turns, given, strict=True)])
            )
    wanted = [Row(**row) for row in given]
    assert read_table(path) == list(load_benchmark("jsonl", str(path)).rows) == list(read_rows(path).rows) == wanted
    assert as_rows(path, FORGET) == wanted[:1]
    assert as_rows(str(path), RETAIN) == wanted[1:]


def test_dicts_may_have_the_columns_of_another_shape() -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert as_rows([{"messages": turns}, {"prompt": "P", "completion": "C"}], FORGET) == [
        Row("Q", "A", FORGET),
        Row("P", "C", FORGET),
    ]
    with pytest.raises(DataError, match=r"forget\[0\]: no 'question' and 'answer' among its columns \('text'\)"):
        as_rows([{"text": "A"}], FORGET)


WRONG = [
    ("d.xlsx", b"PK", r"d\.xlsx: a file of rows ends in \.jsonl, "),
    ("d.csv", b"question,answer\nQ\n", r"d\.csv:2: 1 cells, and the header has 2; "),
    ("d.csv", b'question,answer\n"Q\n2",A\nR,\n', r"d\.csv:4: field 'answer' is missing"),
    ("d.csv", b'question,answer\nQ,A\n"R"x,B\n', r"d\.csv:3: broken row "),
    ("d.csv", b"answer,question,answer\n", r"d\.csv:1: the column 'answer' stands twice"),
    ("d.csv", b"question,answer,perturbed\nQ,A,[1\n", r"d\.csv:2: broken JSON"),
    ("d.csv", b"question,answer\nQ,caf\xe9\n", r"d\.csv:2: byte "),
    ("d.json", b'[\n {"question": "Q"}', r"d\.json:2: broken JSON"),
    (
        "d.json",
        b'{\n "question": "Q"}',
        r"d\.json: no column 'answer' among its columns \('question'\); .* --map answer=",
    ),
    ("d.csv", b"question,anwser\nQ,A\nR,B\n", r"d\.csv: no column 'answer' among .* Did you mean 'anwser'\?$"),
    (
        "d.json",
        b'[{"question": "Q", "answer": "A"}, 3, 4]',
        r"d\.json:row 2: int; .*; 1 more of 3 rows is wrong: row 3$",
    ),
    ("d.parquet", b"PAR1", r"d\.parquet: ArrowInvalid; "),
    ("d.jsonl.gz", b"{}", r"d\.jsonl\.gz: not a complete gzip file"),
    ("d.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], r"d\.jsonl\.gz: not a complete gzip file"),
    ("d.jsonl", b'{"text": "A"}', r"d\.jsonl:1: no 'question' and 'answer' among its columns \('text'\); .*--map"),
    ("d.jsonl", b'{"messages": "Q"}', r"d\.jsonl:1: str; a conversation is a list of turns"),
    ("d.jsonl", b'{"messages": [{"role": "user", "content": "Q"}]}', r"d\.jsonl:1: the turns are user; "),
    ("d.jsonl", b'{"messages": [{"role": "\\u001b[2J"}]}', r"d\.jsonl:1: the turns are unknown; "),
    ("d.jsonl", b'{"prompt": "Q", "completion": 3}', r"d\.jsonl:1: field 'answer' is int"),
]


@pytest.mark.parametrize(("name", "content", "says"), WRONG)
def test_what_is_refused_names_file_and_row(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_unzips_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scopewise.documents._UNZIPPED", 1 << 10)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b" " * 2000, mtime=0))
    with pytest.raises(DataError, match="when unzipped"):
        read_table(tmp_path / "d.jsonl.gz")


def test_folders_that_are_no_datasets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="`datasets` cannot load it"):
        read_table(tmp_path)
    for name in ("none.jsonl", "none.parquet", "none.xlsx"):
        with pytest.raises(DataError, match="no such file"):
            read_table(tmp_path / name)


def test_a_mapping_names_fields_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(lines([{"q": "Q", "response": "A"}]))
    with pytest.raises(ConfigError, match=r"'anwser' is no field of a row; .* Did you mean 'answer'\?"):
        read_table(path, {"anwser": "response"})
    with pytest.raises(DataError, match=r"no column 'respons' for 'answer'; .* Did you mean 'response'\?"):
        read_table(path, {"answer": "respons"})
    assert read_table(path, {"answer": "response", "question": "q"}) == [Row("Q", "A", FORGET)]
