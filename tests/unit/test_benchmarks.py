"""The public benchmarks: their rows, what is missing or wrong in their folders, and no connection."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from forks import python
from hub_folders import MAKE, NAMES, array, columns, lines, load, lume, message, muse, pairs, pistol, rwku, tofu, wmdp
from scopewise import registry
from scopewise.data.hub import Table, joined, table_records, text_pieces
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark
from scopewise.errors import DataError

ROOT = Path(__file__).parents[2]
TOFU_DATA = ROOT.parent / "shared" / "data" / "tofu"


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


@pytest.mark.skipif(not TOFU_DATA.is_dir(), reason="needs ../shared/data/tofu (see tests/SKIPS.md)")
def test_tofu_rows_are_about_their_authors() -> None:
    """Twenty authors to forget, 180 to retain, each with twenty train rows; val rows are about the same ones."""
    rows = load_benchmark("tofu", str(TOFU_DATA), "forget10").rows
    for scope, authors in (("forget", 20), ("retain", 180)):
        count = Counter(row.instance for row in rows if (row.scope, row.split) == (scope, "train"))
        assert sorted(count.values()) == [20] * authors
        assert {row.instance for row in rows if (row.scope, row.split) == (scope, "val")} <= set(count)
    assert "Basil Mahfouz Al-Kuwaiti" in {row.instance for row in rows if row.scope == "forget"}
    assert {row.instance for row in rows if row.scope in {"real_authors", "world_facts"}} == {""}


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


def test_pistol_rows(tmp_path: Path) -> None:
    """One contract is forgotten; of the others it is known whether they share a party with it."""
    found = load("pistol", tmp_path)
    for split in (TRAIN, VAL):
        assert Counter((r.scope, r.instance, r.attribute) for r in found.select(split=split)) == {
            ("forget", "A_C", ""): 2,
            ("retain", "A_m", "linked"): 2,
            ("retain", "E1_F1", "unlinked"): 2,
        }
    row = found.select(FORGET, VAL)[0]
    assert row.question == "What was the effective date of the contract between Aaa SA and Ccc Ltd?"
    assert row.answer == "02-09-2019."
    assert found.taught == (TRAIN,)


def test_pistol_takes_the_graph_that_has_the_contract(tmp_path: Path) -> None:
    """Several contracts are joined by commas; a file is a graph of its own, in the git repository below `data`."""
    folder = pistol(tmp_path / "data")

    def forgotten(path: Path, domain: str) -> list[str]:
        return [r.instance for r in load_benchmark("pistol", str(path), domain).select(FORGET, TRAIN)[::2]]

    assert forgotten(folder, "1_2") == forgotten(folder / "sample_data_2.json", "1_2") == ["1_2"]
    assert forgotten(tmp_path, "E1_F1, A_C") == ["A_C", "E1_F1"]
    assert "'1_3'; this data of pistol has 5 contracts, among them 'A_C', 'A_m', 'E1_F1'; name" in message(
        "pistol", folder, "1_3"
    )
    assert "'1_2'; this data of pistol has 3 contracts" in message("pistol", folder, "A_C,1_2")
    assert "'A_C'; this data of pistol has 2 contracts" in message("pistol", folder / "sample_data_2.json")
    assert "no train row of scope 'retain'" in message("pistol", folder, "0_1,1_2")
    array(folder / "sample_data_1.json", [{"question": "Q?", "answer": "A", "edge": 1}])
    assert "sample_data_1.json:row 1: column 'edge' is int; it must be text" in message("pistol", folder)


def test_pistol_asks_for_general_knowledge_where_the_folder_has_it(tmp_path: Path) -> None:
    array(pistol(tmp_path) / "factual_data.json", pairs("world", 3))
    for path in (tmp_path, tmp_path / "sample_data_1.json"):
        found = load_benchmark("pistol", str(path))
        assert [r.answer for r in found.select("world_facts", VAL)] == ["world is 0.", "world is 1.", "world is 2."]


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
    "pistol": ("sample_data_1.json", "hf download xinchiqiu/PISTOL"),
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
        "pistol": "sample_data_1.jsonl",
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
