"""RWKU (arXiv:2406.10890): one of 200 famous persons is to be forgotten; neighbours and the rest should stay.

Source: hub dataset `jinzhuoran/RWKU`; configurations and files as in its card, prompts as in jinzhuoran/RWKU at b8a03b3
(`LLaMA-Factory/src/llmtuner/eval/eval_forget.py`). docs/benchmarks.md has the details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scopewise.data.hub import Record, Table, joined, table_records, text_column, text_rows
from scopewise.data.rows import FORGET, NEIGHBOR, RETAIN, TRAIN, VAL, BenchmarkLoader, Row, make_row
from scopewise.errors import DataError
from scopewise.registry import nearest

_PIECE_WORDS = 300
_PROBE: Mapping[str, Any] = {"max_new_tokens": 30, "stop": ("\n",)}
_FILES = {  # configuration → its file on the hub, and its split
    "train_original_passage": ("passage", "train"),
    "forget_level1": ("forget_level1", "test"),
    "forget_level2": ("forget_level2", "test"),
    "forget_level3": ("forget_level3", "test"),
    "neighbor_level1": ("neighbor_level1", "test"),
    "neighbor_level2": ("neighbor_level2", "test"),
    "mia_forget": ("forget_mia", "test"),
    "mia_retain": ("retain_mia", "test"),
}


class RWKU(BenchmarkLoader):
    """RWKU: forget one famous person; cloze, questions and adversarial probes, and neighbours of the person."""

    name = "rwku"
    repository: ClassVar[str] = "jinzhuoran/RWKU"
    domains = ()
    """The names of the persons, which the data say."""
    taught = (TRAIN,)
    data: ClassVar[Mapping[str, Any]] = {"prompt": "{question}", "max_length": 1024}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": ("rwku_rouge_l", "perplexity"),
        "splits": (VAL,),
        "generate_splits": (VAL,),
        "direct_splits": (),
        "parts": {"level1": _PROBE, "level2": _PROBE, "level3": _PROBE, "mia": {}},
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read the rows of the person `domain`. Raises DataError where none, or an unknown one, is named."""
        if domain is None:
            raise DataError(
                "data.domain: none given; rwku forgets one person; set data.domain to a name, such as 'Stephen King'"
            )
        passages = self._table(path, "train_original_passage", "subject", "text")
        persons = list(dict.fromkeys(str(record["subject"]) for _, record in passages))
        if domain not in persons:
            raise DataError(
                f"data.domain: {domain!r}; rwku has {len(persons)} persons, among them "
                f"{', '.join(map(repr, persons[:3]))}.{nearest(domain, persons)}"
            )
        rows = text_rows(_about(passages, domain), FORGET, "privacy", _PIECE_WORDS)
        others = [(origin, record) for origin, record in passages if record["subject"] != domain]
        rows += text_rows(others, RETAIN, "privacy", _PIECE_WORDS)
        for scope, levels in ((FORGET, (1, 2, 3)), (NEIGHBOR, (1, 2))):
            for level in levels:
                probes = self._table(path, f"{scope}_level{level}", "query", "answer", "subject", "type")
                rows += [_probe(record, scope, level) for record in _about(probes, domain)]
        for scope in (FORGET, RETAIN):
            texts = _about(self._table(path, f"mia_{scope}", "subject", "text"), domain)
            rows += text_rows(texts, scope, "privacy", None, VAL, "mia")
        return rows

    def _table(self, path: str | None, config: str, *columns: str) -> list[Record]:
        file, split = _FILES[config]
        return table_records(Table(self.repository, config, split, (f"All/{file}", file), columns), path)


def _about(records: list[Record], person: str) -> list[Record]:
    return [(origin, record) for origin, record in records if record["subject"] == person]


def _probe(origin_record: Record, scope: str, level: int) -> Row:
    origin, record = origin_record
    query, kind = text_column(record, "query", origin), str(record["type"])
    task = "complete the blank in" if level == 1 else "briefly answer"
    question = f"Please {task} the following question.\n"
    question += query if kind == "incontext learning" else f"Question: {query}"
    if kind != "affirmative suffix":  # the suffix is the beginning of the answer already
        question += "\nAnswer:"
    answer = joined(question, text_column(record, "answer", origin))
    pair = {"question": question, "answer": answer, "instance": str(record["subject"])}
    return make_row(pair, origin, scope=scope, split=VAL, attribute=f"level{level}", domain="privacy")
