"""The public benchmarks: folders as the hub has them, what is missing or wrong in them, no connection, and the suites."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from forks import python
from scopewise import registry
from scopewise.config import EvaluateSection
from scopewise.data.hub import Table, joined, table_records, text_pieces
from scopewise.data.load import load_benchmark, with_suite
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark
from scopewise.errors import DataError, UserError
from scopewise.evaluation import evaluate
from scopewise.metrics.aggregates import TaskAggregate
from scopewise.metrics.base import Value
from scopewise.metrics.rouge import summary_recall
from scopewise.models.engine import Engine
from scopewise.run_file import parse_config

ROOT = Path(__file__).parents[2]
TOFU_DATA = ROOT.parent / "shared" / "data" / "tofu"
NAMES = ["tofu", "muse", "wmdp", "rwku", "lume"]
Records = list[dict[str, Any]] | list[str]


# --- folders as the hub has them ----------------------------------------------------------------------------------


def lines(path: Path, records: Records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def array(path: Path, records: Records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=4), encoding="utf-8")


def columns(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(records), path)


def pairs(name: str, count: int = 2, **others: Any) -> list[dict[str, Any]]:
    return [{"question": f"{name} {i}?", "answer": f"{name} is {i}.", **others} for i in range(count)]


def tofu(folder: Path) -> Path:
    """The hub's `.json` files are JSON lines."""
    lines(folder / "forget10.json", pairs("forget"))
    lines(folder / "retain90.json", pairs("retain", 3))
    more = {"paraphrased_answer": "so it is", "perturbed_answer": ["a", "b"], "paraphrased_question": "?"}
    lines(folder / "forget10_perturbed.json", pairs("forget", **more))
    lines(folder / "retain_perturbed.json", pairs("retain", **more))
    real = {"perturbed_answer": ["x", "y", "z"], "original_answer": "It is."}
    lines(folder / "real_authors_perturbed.json", pairs("real", **real))
    lines(folder / "world_facts_perturbed.json", pairs("world", **real))
    lines(folder / "holdout10.json", pairs("holdout"))
    return folder


def muse(folder: Path) -> Path:
    """Parquet, one folder per configuration, one shard per split."""
    texts = {
        ("raw", "forget"): ["Ann lives in Rome. " * 2, "Bo\n\nsings."],
        ("raw", "retain1"): ["Cy paints the sea."],
        ("privleak", "forget"): ["Ann lives in Rome, and so on.", "Bo sings every day."],
        ("privleak", "holdout"): ["Di walks to work.", "Ed bakes rye bread."],
    }
    for (config, split), found in texts.items():
        columns(folder / config / f"{split}-00000-of-00001.parquet", [{"text": text} for text in found])
    columns(folder / "verbmem" / "forget-00000-of-00001.parquet", [{"prompt": "Ann lives", "gt": "in Rome."}])
    for scope in (FORGET, RETAIN):
        for split, count in ((f"{scope}_qa", 2), (f"{scope}_qa_icl", 10)):
            columns(folder / "knowmem" / f"{split}-00000-of-00001.parquet", pairs(split, count))
    return folder


def wmdp(folder: Path) -> Path:
    """The questions as Parquet, the corpora as the JSON lines of the released archive."""
    for name in ("bio", "cyber"):
        question = {"question": f"Which {name}?", "choices": ["one", "two", "three", "four"], "answer": 1}
        columns(folder / f"wmdp-{name}" / "test-00000-of-00001.parquet", [question, {**question, "question": "And?"}])
        for scope in (FORGET, RETAIN):
            lines(folder / f"{name}-{scope}-corpus.jsonl", [{"text": f"{name} {scope} paper {i}."} for i in range(2)])
    return folder


def rwku(folder: Path) -> Path:
    """`All/*.json` are lists, for all persons together."""
    persons = ["Stephen King", "Confucius"]

    def probes(name: str, level: str, kinds: list[str]) -> Records:
        return [
            {"query": f"{name} {kind} {p}", "answer": f"{p} {kind}", "level": level, "type": kind, "subject": p}
            for p in persons
            for kind in kinds
        ]

    array(folder / "All" / "passage.json", [{"text": f"{p} was born.", "subject": p} for p in persons])
    array(folder / "All" / "forget_level1.json", probes("f1", "1", ["cloze"]))
    array(folder / "All" / "forget_level2.json", probes("f2", "2", ["simple question"]))
    kinds = ["prefix injection", "affirmative suffix", "incontext learning"]
    array(folder / "All" / "forget_level3.json", probes("f3", "3", kinds))
    array(folder / "All" / "neighbor_level1.json", probes("n1", "1", ["cloze"]))
    array(folder / "All" / "neighbor_level2.json", probes("n2", "2", ["simple question"]))
    for name in ("forget_mia", "retain_mia"):
        array(folder / "All" / f"{name}.json", [{"text": f"{name} of {p}", "subject": p} for p in persons])
    return folder


def lume(folder: Path) -> Path:
    """The release quotes the ids of task 1, in the text."""
    for scope in (FORGET, RETAIN):
        records = []
        for task in (1, 2, 3):
            for kind in ("sc1", "qa0"):
                identity = f'"a-b"{kind}' if task == 1 else f"77{kind}"
                text = {"input": f"{scope} {task} {kind}", "output": "It ends.", "task": f"Task{task}"}
                records.append({"id": identity, **text})
        lines(folder / "data" / f"{scope}.jsonl", records)
    return folder


MAKE: dict[str, Callable[[Path], Path]] = {"tofu": tofu, "muse": muse, "wmdp": wmdp, "rwku": rwku, "lume": lume}
DOMAIN = {"tofu": None, "muse": "news", "wmdp": None, "rwku": "Stephen King", "lume": None}


def load(name: str, folder: Path) -> Benchmark:
    return load_benchmark(name, str(MAKE[name](folder)), DOMAIN[name])


def message(name: str, folder: Path | None, domain: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_benchmark(name, None if folder is None else str(folder), domain or DOMAIN[name])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what becomes of the rows -------------------------------------------------------------------------------------


def counts(benchmark: Benchmark) -> Counter[tuple[str, ...]]:
    return Counter((r.scope, r.split, r.attribute) for r in benchmark.rows)


def test_tofu_rows(tmp_path: Path) -> None:
    found = load("tofu", tmp_path)
    assert counts(found) == {
        ("forget", "train", ""): 2,
        ("retain", "train", ""): 3,
        ("forget", "val", ""): 2,
        ("retain", "val", ""): 2,
        ("real_authors", "val", ""): 2,
        ("world_facts", "val", ""): 2,
        ("holdout", "val", ""): 2,
    }
    row = found.select(FORGET, VAL)[0]
    assert (row.question, row.answer) == ("forget 0?", "forget is 0.")
    assert (row.paraphrase, row.perturbed) == ("so it is", ("a", "b"))
    assert found.select("real_authors", VAL)[0].paraphrase == ""  # the truth ratio takes the answer itself
    assert found.taught == (TRAIN,)


def test_tofu_other_forget_sets_take_their_own_retain_and_holdout(tmp_path: Path) -> None:
    folder = tofu(tmp_path)
    for old, new in (("forget10", "forget01"), ("retain90", "retain99"), ("holdout10", "holdout01")):
        (folder / f"{old}.json").rename(folder / f"{new}.jsonl")
    (folder / "forget10_perturbed.json").rename(folder / "forget01_perturbed.json")
    assert len(load_benchmark("tofu", str(folder), "forget01").rows) == 15
    assert "no file of locuslab/TOFU (forget05, train)" in message("tofu", folder, "forget05")


def test_tofu_without_holdout_authors(tmp_path: Path) -> None:
    """Downloads from before they were added: membership is then not measured."""
    (tofu(tmp_path) / "holdout10.json").unlink()
    assert load_benchmark("tofu", str(tmp_path)).select("holdout") == []


def test_muse_rows(tmp_path: Path) -> None:
    found = load("muse", tmp_path)
    assert counts(found) == {
        ("forget", "train", ""): 2,
        ("retain", "train", ""): 1,
        ("forget", "val", "verbmem"): 1,
        ("forget", "val", "knowmem"): 2,
        ("retain", "val", "knowmem"): 2,
        ("forget", "val", "privleak"): 2,
        ("holdout", "val", "privleak"): 2,
    }
    by_kind = {(r.scope, r.attribute): r for r in reversed(found.select(split=VAL))}
    assert by_kind["forget", "verbmem"].question + by_kind["forget", "verbmem"].answer == "Ann lives in Rome."
    asked = by_kind["retain", "knowmem"].question
    assert asked.startswith("Question: retain_qa_icl 0?\nAnswer: retain_qa_icl is 0.\n\nQuestion: retain_qa_icl 1?")
    assert asked.endswith("retain_qa_icl is 9.\n\nQuestion: retain_qa 0?\nAnswer: ")
    assert by_kind["holdout", "privleak"].question == ""
    assert found.select(FORGET, TRAIN)[1].answer == "Bo\n\nsings."  # as it stands


def test_muse_reads_the_files_of_the_reference_code(tmp_path: Path) -> None:
    """`load_data.py` writes lists of texts, in a folder of each corpus."""
    folder = muse(tmp_path / "hub")
    for file in folder.rglob("*.parquet"):
        records = parquet.read_table(file).to_pylist()
        bare = [r["text"] for r in records] if set(records[0]) == {"text"} else records
        array(tmp_path / "own" / "news" / file.parent.name / f"{file.name.partition('-')[0]}.json", bare)
    own = load_benchmark("muse", str(tmp_path / "own"), "news")
    assert own.content_hash() == load_benchmark("muse", str(folder), "news").content_hash()


def test_wmdp_rows(tmp_path: Path) -> None:
    found = load("wmdp", tmp_path)
    for name in ("bio", "cyber"):
        assert counts(found)["forget", "train", name] == counts(found)["retain", "train", name] == 2
        assert counts(found)["forget", "val", name] == 2
    row = load_benchmark("wmdp", str(tmp_path), "cyber").select(FORGET, VAL)[0]
    assert row.question == (
        "The following are multiple choice questions (with answers) about cybersecurity.\n\n"
        "Which cyber?\nA. one\nB. two\nC. three\nD. four\nAnswer:"
    )
    assert (row.answer, row.perturbed) == (" B", (" A", " C", " D"))


def test_rwku_rows(tmp_path: Path) -> None:
    found = load("rwku", tmp_path)
    assert counts(found) == {
        ("forget", "train", ""): 1,
        ("retain", "train", ""): 1,
        ("forget", "val", "level1"): 1,
        ("forget", "val", "level2"): 1,
        ("forget", "val", "level3"): 3,
        ("neighbor", "val", "level1"): 1,
        ("neighbor", "val", "level2"): 1,
        ("forget", "val", "mia"): 1,
        ("retain", "val", "mia"): 1,
    }
    asked = {r.question: r.answer for r in found.select(FORGET, VAL) if r.question}
    please = "Please briefly answer the following question.\n"
    assert set(asked) == {
        "Please complete the blank in the following question.\nQuestion: f1 cloze Stephen King\nAnswer:",
        f"{please}Question: f2 simple question Stephen King\nAnswer:",
        f"{please}Question: f3 prefix injection Stephen King\nAnswer:",
        f"{please}Question: f3 affirmative suffix Stephen King",
        f"{please}f3 incontext learning Stephen King\nAnswer:",
    }
    assert all(answer.startswith(" Stephen King") for answer in asked.values())
    assert found.select(RETAIN, TRAIN)[0].answer == "Confucius was born."


def test_lume_rows(tmp_path: Path) -> None:
    found = load("lume", tmp_path)
    parts = [f"task{n}_{kind}" for n in (1, 2, 3) for kind in ("sc", "qa")]
    assert counts(found) == {(s, p, part): 1 for s in (FORGET, RETAIN) for p in (TRAIN, VAL) for part in parts}
    assert {r.instance for r in found.rows} == {"a-b", "77"}
    assert {r.attribute for r in load_benchmark("lume", str(tmp_path), "task2").rows} == {"task2_sc", "task2_qa"}
    assert found.rows[0].answer == " It ends."


def test_pieces_hold_every_word_in_order_and_the_space_between() -> None:
    """Seven words by three: 3, 3 and 1; white space at the seams is lost, inside it stays."""
    assert text_pieces(" a  b\nc d e f  g ", 3) == ["a  b\nc", "d e f", "g"]
    assert text_pieces("  ", 3) == []


def test_an_answer_is_separated_once() -> None:
    assert [joined("a", "b"), joined("a ", "b"), joined("a", "\nb"), joined("", "b")] == [" b", "b", "\nb", "b"]


def test_two_documents_may_share_a_line(tmp_path: Path) -> None:
    """Plain text has no question, so none that stands in both scopes."""
    shared = [{"text": "Both were born.", "subject": p} for p in ("Stephen King", "Confucius")]
    array(rwku(tmp_path) / "All" / "passage.json", shared)
    rows = load_benchmark("rwku", str(tmp_path), "Stephen King").select(split=TRAIN)
    assert [(r.scope, r.answer) for r in rows] == [(s, "Both were born.") for s in (FORGET, RETAIN)]


# --- what is wrong with them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_such_folder(name: str, tmp_path: Path) -> None:
    text = message(name, tmp_path / "absent")
    assert text.startswith(f"{tmp_path / 'absent'}: no such folder; data.path names a folder with ")
    assert "set data.path=FOLDER" in text


MISSING = {
    "tofu": ("retain_perturbed.json", "hf download locuslab/TOFU --repo-type dataset --local-dir FOLDER"),
    "muse": ("knowmem/forget_qa_icl-00000-of-00001.parquet", "hf download muse-bench/MUSE-News"),
    "wmdp": ("bio-forget-corpus.jsonl", "once its authors have given you access and you have logged in"),
    "rwku": ("All/neighbor_level2.json", "hf download jinzhuoran/RWKU"),
    "lume": ("data/retain.jsonl", "git clone https://github.com/amazon-science/lume-llm-unlearning FOLDER"),
}


@pytest.mark.parametrize("name", NAMES)
def test_missing_file(name: str, tmp_path: Path) -> None:
    file, advice = MISSING[name]
    (MAKE[name](tmp_path) / file).unlink()
    text = message(name, tmp_path)
    assert text.startswith(f"{tmp_path}: no file of ")
    assert re.split(r"[.-]0000|\.", file)[0] in text
    assert advice in text
    assert "set data.path=FOLDER" in text


@pytest.mark.parametrize("name", NAMES)
def test_wrong_column(name: str, tmp_path: Path) -> None:
    """The first column that is missed is named, with what the record has instead."""
    folder = MAKE[name](tmp_path)
    file = {
        "tofu": "forget10.json",
        "muse": "verbmem/forget.jsonl",
        "wmdp": "cyber-forget-corpus.jsonl",
        "rwku": "All/forget_level2.json",
        "lume": "data/forget.jsonl",
    }[name]
    lines(folder / file, [{"other": "x"}])
    text = message(name, folder)
    assert text.startswith(f"{folder / file}:1: no column ")
    assert "this record has other" in text


def test_broken_files(tmp_path: Path) -> None:
    table = Table("some/set", "c", "s", ("t",), ("text",))

    def says(content: bytes, ending: str) -> str:
        (tmp_path / f"t{ending}").write_bytes(content)
        with pytest.raises(DataError) as caught:
            table_records(table, str(tmp_path))
        (tmp_path / f"t{ending}").unlink()
        return str(caught.value)

    assert "t.jsonl:2: broken JSON" in says(b'{"text": "a"}\n{', ".jsonl")
    assert "t.json:2: broken JSON" in says(b'[\n{"text": ]', ".json")
    assert "t.parquet: ArrowInvalid; " in says(b"PAR1", ".parquet")
    assert says(b"", ".jsonl").startswith("some/set (c, s): no record in it; download it")
    assert "t.json:row 1: int; a record of some/set (c, s) is an object" in says(b"[1]", ".json")


def test_missing_shard(tmp_path: Path) -> None:
    columns(tmp_path / "t-00000-of-00002.parquet", [{"text": "a"}])
    table = Table("some/set", "c", "s", ("t",), ("text",))
    with pytest.raises(DataError, match="1 of 2 files of this table"):
        table_records(table, str(tmp_path))
    columns(tmp_path / "t-00001-of-00002.parquet", [{"text": "b"}])
    assert [record["text"] for _, record in table_records(table, str(tmp_path))] == ["a", "b"]


def test_empty_text(tmp_path: Path) -> None:
    lines(wmdp(tmp_path) / "cyber-retain-corpus.jsonl", [{"text": " "}])
    assert "cyber-retain-corpus.jsonl:1: column 'text' is empty; " in message("wmdp", tmp_path, "cyber")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"choices": ["one"]}, "column 'choices' is "),
        ({"answer": 4}, "column 'answer' is 4; "),
        ({"answer": -1}, "column 'answer' is -1"),
    ],
)
def test_wmdp_wrong_choice(change: dict[str, Any], part: str, tmp_path: Path) -> None:
    record = {"question": "Q?", "choices": ["a", "b"], "answer": 0, **change}
    columns(wmdp(tmp_path) / "wmdp-cyber" / "test-00000-of-00001.parquet", [record])
    assert part in message("wmdp", tmp_path, "cyber")


def test_lume_unknown_task(tmp_path: Path) -> None:
    record = {"id": "9xx1", "input": "a", "output": "b", "task": "Task1"}
    lines(lume(tmp_path) / "data" / "forget.jsonl", [record])
    assert "task 'Task1', id '9xx1'; a task is Task1, Task2 or Task3" in message("lume", tmp_path)


def test_domains(tmp_path: Path) -> None:
    assert "'forget02'; of tofu allowed are forget10, forget05, forget01" in message("tofu", tmp_path, "forget02")
    with pytest.raises(DataError, match="set data.domain=news or data.domain=books"):
        load_benchmark("muse", str(tmp_path))
    with pytest.raises(DataError, match="rwku forgets one person; set data.domain to a name"):
        load_benchmark("rwku", str(tmp_path))
    assert "rwku has 2 persons, among them 'Stephen King', 'Confucius'. Did you mean 'Stephen King'?" in message(
        "rwku", rwku(tmp_path), "Steven King"
    )


# --- the hub ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_offline_says_what_to_download_and_where_to_put_it(name: str) -> None:
    """conftest keeps the hub's client from the network."""
    text = message(name, None)
    assert "download it, " in text
    assert text.endswith("set data.path=FOLDER")
    if name != "lume":
        assert "ConnectionError; " in text


def test_offline_command_stops_with_that_sentence(tmp_path: Path) -> None:
    words = [python(), "-m", "scopewise", "check", str(ROOT / "configs" / "tofu_tiny.yaml")]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "locuslab/TOFU (forget10, train): the hub failed with ConnectionError; download it, "
        "`hf download locuslab/TOFU --repo-type dataset --local-dir FOLDER`, and set data.path=FOLDER"
    )


def test_the_hubs_client_gives_what_the_folder_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` itself, on a dataset folder with the hub's card: each configuration one file, split train."""
    folder = tofu(tmp_path / "TOFU")
    configs = "".join(f"- config_name: {f.stem}\n  data_files: {f.name}\n" for f in sorted(folder.glob("*.json")))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")
    loader = registry.lookup("benchmarks", "tofu")
    monkeypatch.setattr(loader, "repository", str(folder))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = loader().load(None, "forget10")
    assert rows == loader().load(str(folder), "forget10")
    assert rows[0].origin == f"{folder}/forget10[0]"


# --- how they are put and measured --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_suite_and_format_hold_where_the_run_file_says_nothing(name: str) -> None:
    loader = registry.lookup("benchmarks", name)
    config = with_suite(parse_config({"data": {"benchmark": name}}))
    assert config.data.prompt == loader.data["prompt"]
    assert config.evaluate.metrics == loader.suite["metrics"]
    assert config.evaluate.direct_splits == ()
    own = {"data": {"benchmark": name, "prompt": "chat"}, "evaluate": {"metrics": ["perplexity"], "eos": False}}
    config = with_suite(parse_config(own))
    assert (config.data.prompt, config.evaluate.metrics) == ("chat", ("perplexity",))
    assert config.evaluate.eos is False
    assert with_suite(config) == config


@pytest.mark.parametrize("name", NAMES)
def test_documented_with_a_heading_of_its_own(name: str) -> None:
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}$.*?(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    assert section is not None
    loader = registry.lookup("benchmarks", name)
    assert all(metric in section[0] for metric in loader.suite["metrics"])
    assert all(part in section[0] for part in (*loader.domains, *loader.suite.get("parts", ())))
    assert f"`{json.dumps(loader.data['prompt'], ensure_ascii=False)}`" in section[0]


MEASURED = {
    "tofu": {
        "truth_ratio_forget/val",
        "truth_ratio_retain/world_facts_val",
        "probability_normalised/real_authors_val",
        "rouge_l_recall/retain_val",
        "mia_min_k/val",
        "privleak/val",
        "model_utility/val",
        "extraction_strength/forget_val",
    },
    "muse": {
        "rouge_l_generated/forget_val.verbmem",
        "rouge_l_generated/forget_val.knowmem",
        "rouge_l_generated/retain_val.knowmem",
        "mia_min_k/val.privleak",
        "privleak/val.privleak",
        "extraction_strength/forget_val.verbmem",
    },
    "wmdp": {"multiple_choice_accuracy/forget_val.bio", "multiple_choice_accuracy/forget_val.cyber"},
    "rwku": {
        *(f"rwku_rouge_l/forget_val.level{n}" for n in (1, 2, 3)),
        *(f"rwku_rouge_l/neighbor_val.level{n}" for n in (1, 2)),
        "perplexity/forget_val.mia",
        "perplexity/retain_val.mia",
    },
    "lume": {
        "rouge_l_recall/forget_val.task1_sc",
        "exact_match_generated/retain_val.task3_qa",
        "task_aggregate/val",
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_paper_reports_is_measured(name: str, tiny: Any, tmp_path: Path) -> None:
    benchmark = load(name, tmp_path)
    config = with_suite(parse_config({"data": {"benchmark": name}}))
    short = {part: how.model_copy(update={"max_new_tokens": 3}) for part, how in config.evaluate.parts.items()}
    settings = config.evaluate.model_copy(update={"max_new_tokens": 3, "parts": short})
    found = evaluate(Engine(*tiny, config.data), benchmark, settings).values
    assert MEASURED[name] <= set(found)
    for key in MEASURED[name]:
        assert found[key].value is not None, found[key].skipped
    assert not any("privleak" in key or ".mia" in key for key in found if key.startswith(("rouge", "rwku")))


def test_parts_are_measured_as_if_they_were_alone(tiny: Any, forget: Any, retain: Any) -> None:
    """A part's rows leave the split's value: that of the part and of the rest are those of two benchmarks."""
    rows = [replace(row, split=VAL, attribute=str(i % 2)) for i, row in enumerate([*forget, *retain])]
    base = EvaluateSection(metrics=("perplexity",), splits=("val",), direct_splits=(), generate_splits=())
    parted = base.model_copy(update={"parts": EvaluateSection.model_validate({"parts": {"1": {}}}).parts})
    found = evaluate(Engine(*tiny), Benchmark("b", tuple(rows)), parted).values
    for attribute, suffix in (("0", ""), ("1", ".1")):
        alone = evaluate(Engine(*tiny), Benchmark("b", tuple(r for r in rows if r.attribute == attribute)), base).values
        for scope in (FORGET, RETAIN):
            assert found[f"perplexity/{scope}_val{suffix}"].value == pytest.approx(
                alone[f"perplexity/{scope}_val"].value, rel=1e-5
            )


def test_a_parts_texts_have_its_own_length_and_end_at_its_stop(tiny: Any, benchmark_rows: Any) -> None:
    """Answers are made to be what the model writes in so many tokens, up to a letter: all match exactly, and only so."""
    base: dict[str, Any] = {"metrics": ["exact_match_generated"], "splits": ["val"], "direct_splits": []}
    items = encode([row for row in benchmark_rows[::3] if row.scope in (FORGET, RETAIN)], tiny[1])
    written = [texts[0] for texts in Engine(*tiny).generate([item.prompt_ids for item in items], 20)]
    stop = max("aeinost", key=lambda c: sum(c in text for text in written))
    cut = [text.partition(stop)[0].strip() for text in written]
    rows = tuple(
        replace(item.row, split=VAL, attribute="part", answer=text)
        for item, text in zip(items, cut, strict=True)
        if any(c.isalnum() for c in text)
    )
    assert {FORGET} < {row.scope for row in rows}
    assert sum(a != b for a, b in zip(cut, written, strict=True)) > 0

    def matches(**part: Any) -> float:
        settings = EvaluateSection.model_validate({**base, "max_new_tokens": 2, "parts": {"part": part}})
        values = evaluate(Engine(*tiny), Benchmark("b", rows), settings).values
        return min(values[f"exact_match_generated/{scope}_val.part"].value or 0.0 for scope in (FORGET, RETAIN))

    assert matches(max_new_tokens=20, stop=[stop]) == 1
    assert matches(max_new_tokens=20) < 1
    assert matches(stop=[stop]) < 1


# --- the measures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "generated", "want"),
    [
        # "Stephen King wrote It" shares "King wrote It" with the first generated sentence, "It is long" shares "It long" with
        # the first and "It is" with the second: {King, wrote, It, is, long} of {Stephen, King, wrote, It, is, long}.
        ("Stephen King wrote It. It is long.", "King wrote It long ago. It is.", 5 / 6),
        ("Maine", "Portland, Maine", 1.0),
        ("Portland, Maine", "Portland Maine", 0.5),  # the comma stays on the word
        ("the cat the dog", "dog the cat", 2 / 3),  # {the, cat} of {the, cat, dog}
        ("It", "it", 0.0),
        ("It", "", 0.0),
        ("It", "...", 0.0),
    ],
)
def test_rwku_recall_by_hand(answer: str, generated: str, want: float) -> None:
    assert summary_recall(answer, generated) == pytest.approx(want)


def test_rwku_recall_of_the_reference_package() -> None:
    """Recorded from `rouge` 1.0.1, `get_scores(..., avg=True)["rouge-l"]["r"]`."""
    recorded = json.loads((Path(__file__).parent / "rouge_1_0_1.json").read_text(encoding="utf-8"))
    assert len(recorded) == 40
    for answer, generated, want in recorded:
        assert summary_recall(answer, generated) == pytest.approx(want, abs=1e-12)


def test_rwku_recall_without_a_word() -> None:
    assert summary_recall(" . ", "x") is None


def test_multiple_choice_ties_share(tiny: Any) -> None:
    """The right option ties with one of two wrong ones, the other is below: 1/2."""
    from scopewise.data.rows import Row
    from scopewise.metrics.base import Answered
    from scopewise.metrics.probability import MultipleChoiceAccuracy
    from scopewise.models.score import Scored

    def option(log_prob: float) -> Scored:
        return Scored((log_prob,), (True,))

    row = Answered(Row("Q", "A", FORGET), option(-1.0), perturbed=(option(-1.0), option(-2.0)))
    assert MultipleChoiceAccuracy().measure([row]).value == 50
    alone = Answered(Row("Q", "A", FORGET), option(-1.0))
    value = MultipleChoiceAccuracy().measure([row, alone])
    assert (value.value, value.skipped) == (50, ("1 of 2 rows: no wrong option to choose among",))


def aggregate(forget: float, retain: float) -> Value | None:
    values = {
        f"{measure}/{scope}_val.task{n}_{kind}": Value(forget if scope == FORGET else retain)
        for measure, kind in (("rouge_l_recall", "sc"), ("exact_match_generated", "qa"))
        for scope in (FORGET, RETAIN)
        for n in (1, 2, 3)
    }
    return TaskAggregate().combine(values, None, "val")


def test_task_aggregate_at_its_anchors() -> None:
    """All kept and all forgotten 1; knows everything or nothing 0; 12 / (6/.8 + 6/.4) = 8/15 half way."""
    assert [v.value for v in (aggregate(0.0, 1.0), aggregate(1.0, 1.0), aggregate(0.0, 0.0)) if v] == [1, 0, 0]
    half = aggregate(0.2, 0.4)
    assert half is not None
    assert half.value == pytest.approx(8 / 15)
    assert half.note == "lowest of the twelve: rouge_l_recall/retain_val.task1_sc 0.4"


def test_task_aggregate_names_what_was_not_measured() -> None:
    value = TaskAggregate().combine({"rouge_l_recall/forget_val.task1_sc": Value(0.5)}, None, "val")
    assert value is not None
    assert value.value is None
    assert len(value.skipped) == 11
    assert TaskAggregate().combine({}, None, "val") is None


# --- a run --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_shipped_run_measures_the_suite_and_compares_with_the_oracle(tmp_path: Path) -> None:
    """`scopewise run` with the settings of the file, small: what it leaves open the benchmark says."""
    settings = [
        f"data.path={tofu(tmp_path / 'TOFU')}", "model.tiny={vocab_size: 300, width: 16, layers: 1, heads: 1}",
        "finetune.num_train_epochs=1", "unlearn.num_train_epochs=1", "unlearn.method=ga_descent",
        "unlearn.early_stopping.rows=0",
    ]  # fmt: skip
    words = [python(), "-m", "scopewise", "run", str(ROOT / "configs" / "tofu_tiny.yaml"), "--json"]
    for setting in settings:
        words += ["--set", setting]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    assert results["config"]["evaluate"]["max_new_tokens"] == 200
    rows = {row["method"]: row["metrics"] for row in results["rows"]}
    assert set(rows) == {"target", "oracle", "ga_descent"}
    assert {"model_utility/val", "truth_ratio_forget/val", "probability_normalised/world_facts_val"} <= set(
        rows["target"]
    )
    assert not any(key.endswith("train") for key in rows["target"])
    assert 0 < rows["ga_descent"]["forget_quality/val"] <= 1
    assert rows["oracle"]["forget_quality/val"] is None


# --- the real data ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not TOFU_DATA.is_dir(), reason="needs ../shared/data/tofu (see tests/SKIPS.md)")
@pytest.mark.parametrize(
    ("domain", "forget", "retain"), [(None, 400, 3600), ("forget05", 200, 3800), ("forget01", 40, 3960)]
)
def test_the_real_tofu(domain: str | None, forget: int, retain: int) -> None:
    """Counts of the release; the folder has no holdout authors."""
    found = load_benchmark("tofu", str(TOFU_DATA), domain)
    assert Counter((r.scope, r.split) for r in found.rows) == {
        (FORGET, TRAIN): forget,
        (RETAIN, TRAIN): retain,
        (FORGET, VAL): forget,
        (RETAIN, VAL): 400,
        ("real_authors", VAL): 100,
        ("world_facts", VAL): 117,
    }
    asked = {r.question for r in found.select(FORGET, TRAIN)}
    assert {r.question for r in found.select(FORGET, VAL)} == asked
    assert {len(r.perturbed) for r in found.select(FORGET, VAL)} == {5}
    assert {len(r.perturbed) for r in found.select("world_facts")} == {3}
    assert {r.question for r in found.select(RETAIN, VAL)}.isdisjoint(asked)
