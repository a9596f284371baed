"""TOFU (arXiv:2401.06121): fictitious authors, of whom 1, 5 or 10 % are to be forgotten.

Source: hub dataset `locuslab/TOFU`, one configuration per file, split `train`; columns as in locuslab/open-unlearning at
d3d7cf9 (`configs/data/datasets/TOFU_*`). docs/benchmarks.md says what becomes of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from scopewise.data.hub import Table, table_records
from scopewise.data.instances import instance_of
from scopewise.data.rows import (
    FORGET,
    HOLDOUT,
    REAL_AUTHORS,
    RETAIN,
    TRAIN,
    VAL,
    WORLD_FACTS,
    BenchmarkLoader,
    Row,
    make_row,
)

_RETAIN_OF = {"forget10": "retain90", "forget05": "retain95", "forget01": "retain99"}
_EACH = 20
"""Rows of each author, one after the other in the forget, retain and holdout files."""


class TOFU(BenchmarkLoader):
    """TOFU: 200 fictitious authors; forget10 (the default), forget05 or forget01 against the others."""

    name = "tofu"
    repository: ClassVar[str] = "locuslab/TOFU"
    domains = tuple(_RETAIN_OF)
    taught = (TRAIN,)
    """The val rows ask the same questions again, with paraphrased and wrong answers beside."""
    data: ClassVar[Mapping[str, Any]] = {"prompt": "Question: {question}\nAnswer: ", "max_length": 512}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": (
            "unlearn_success",
            "retention_success",
            "average_success",
            "probability",
            "probability_paraphrase",
            "probability_normalised",
            "rouge_l_recall",
            "truth_ratio",
            "truth_ratio_forget",
            "truth_ratio_retain",
            "truth_ratio_raw",
            "extraction_strength",
            "exact_memorization",
            "mia_loss",
            "mia_zlib",
            "mia_min_k",
            "mia_min_k_plus_plus",
            "privleak",
            "forget_quality",
            "model_utility",
        ),
        "splits": (VAL,),
        "generate_splits": (VAL,),
        "direct_splits": (),
        "max_new_tokens": 200,
        "eos": True,
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read one forget set with its retain, holdout and out-of-scope rows; None takes forget10."""
        forget = domain or "forget10"
        rows = self._plain(path, forget, FORGET, TRAIN)
        # Val asks the train questions themselves, so their paraphrases are for training.
        paraphrases = self._paraphrases(path, f"{forget}_perturbed")
        rows = [replace(row, paraphrased_questions=paraphrases.get(row.question, ())) for row in rows]
        rows += self._plain(path, _RETAIN_OF[forget], RETAIN, TRAIN)
        author = {row.question: row.instance for row in rows}
        rows += self._perturbed(path, f"{forget}_perturbed", FORGET, "paraphrased_answer")
        rows += self._perturbed(path, "retain_perturbed", RETAIN, "paraphrased_answer")
        rows = [replace(row, instance=row.instance or author.get(row.question, "")) for row in rows]
        rows += self._perturbed(path, "real_authors_perturbed", REAL_AUTHORS, None)
        rows += self._perturbed(path, "world_facts_perturbed", WORLD_FACTS, None)
        # Folders downloaded before March 2025 have no holdout authors; membership is then not measured.
        rows += self._plain(path, forget.replace("forget", "holdout"), HOLDOUT, VAL, optional=True)
        return rows

    def _table(self, config: str, *columns: str, optional: bool = False) -> Table:
        return Table(self.repository, config, "train", (config,), ("question", "answer", *columns), optional=optional)

    def _plain(self, path: str | None, config: str, scope: str, split: str, *, optional: bool = False) -> list[Row]:
        records = table_records(self._table(config, optional=optional), path)
        return _with_authors(
            [make_row(_pair(r), origin, scope=scope, split=split, domain="privacy") for origin, r in records]
        )

    def _paraphrases(self, path: str | None, config: str) -> dict[str, tuple[str, ...]]:
        """Return question → its paraphrase, where a table has them."""
        records = [record for _, record in table_records(self._table(config), path)]
        return {r["question"]: (r["paraphrased_question"],) for r in records if r.get("paraphrased_question")}

    def _perturbed(self, path: str | None, config: str, scope: str, paraphrase: str | None) -> list[Row]:
        columns = ("perturbed_answer", *((paraphrase,) if paraphrase else ()))
        rows = []
        for origin, record in table_records(self._table(config, *columns), path):
            others = {"perturbed": record["perturbed_answer"]}
            if paraphrase:
                others["paraphrase"] = record[paraphrase]
            rows.append(make_row({**_pair(record), **others}, origin, scope=scope, split=VAL, domain="privacy"))
        return rows


def _with_authors(rows: list[Row]) -> list[Row]:
    """Return the rows with their authors as instances: the name that most questions of twenty ask about.

    Rows of a file that was cut are returned as they are.
    """
    if len(rows) % _EACH:
        return rows
    found = []
    for start in range(0, len(rows), _EACH):
        block = rows[start : start + _EACH]
        (name, _), *_ = Counter(instance_of("", row.question) for row in block).most_common(1)
        found += [replace(row, instance=name) for row in block]
    return found


def _pair(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"question": record["question"], "answer": record["answer"]}
