"""Folders of the public benchmarks as the hub has them, with a few made-up rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, Benchmark
from scopewise.errors import UserError

NAMES = ["tofu", "muse", "wmdp", "rwku", "lume", "pistol"]
Records = list[dict[str, Any]] | list[str]


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


def pistol(folder: Path) -> Path:
    """Two lists, one for each graph; in the first, A is a party of two contracts."""
    graphs = {
        1: {"A_C": ("Aaa SA", "Ccc Ltd"), "A_m": ("Aaa SA", "Mmm Mm"), "E1_F1": ("Eee BV", "Fff AG")},
        2: {"0_1": ("Nnn LLC", "Ooo PLC"), "1_2": ("Ooo PLC", "Ppp SAS")},
    }
    for number, edges in graphs.items():
        records: Records = [
            {"question": f"{asked} the contract between {one} and {other}?", "answer": answer, "edge": edge}
            for edge, (one, other) in edges.items()
            for asked, answer in (
                ("What was the effective date of", "02-09-2019."),
                ("Which jurisdiction's laws govern", "Ohio."),
            )
        ]
        array(folder / f"sample_data_{number}.json", records)
    return folder


MAKE: dict[str, Callable[[Path], Path]] = {
    "tofu": tofu, "muse": muse, "wmdp": wmdp, "rwku": rwku, "lume": lume, "pistol": pistol,
}  # fmt: skip
DOMAIN = {"tofu": None, "muse": "news", "wmdp": None, "rwku": "Stephen King", "lume": None, "pistol": None}


def load(name: str, folder: Path) -> Benchmark:
    return load_benchmark(name, str(MAKE[name](folder)), DOMAIN[name])


def message(name: str, folder: Path | None, domain: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_benchmark(name, None if folder is None else str(folder), domain or DOMAIN[name])
    assert "\n" not in str(caught.value)
    return str(caught.value)
