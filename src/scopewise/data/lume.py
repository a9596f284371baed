"""LUME (arXiv:2502.15097), the data of SemEval-2025 task 4: stories, invented and real biographies.

Source: `data/forget.jsonl` and `data/retain.jsonl` of github.com/amazon-science/lume-llm-unlearning at b2fa8f9, columns
`id`, `input`, `output`, `task`; the hub does not have it. docs/benchmarks.md has the details.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from scopewise.data.hub import Table, joined, table_records, text_column
from scopewise.data.rows import FORGET, RETAIN, SPLITS, TRAIN, VAL, BenchmarkLoader, Row, make_row
from scopewise.errors import DataError

_TASKS = ("task1", "task2", "task3")
_OBTAIN = "`git clone https://github.com/amazon-science/lume-llm-unlearning FOLDER`"


class LUME(BenchmarkLoader):
    """LUME: synthetic stories, synthetic biographies with personal data, real biographies; all, or one task."""

    name = "lume"
    domains = _TASKS
    taught = (TRAIN,)
    data: ClassVar[Mapping[str, Any]] = {"prompt": "{question}", "max_length": 512}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": ("rouge_l_recall", "exact_match_generated", "task_aggregate"),
        "splits": (VAL,),
        "generate_splits": (VAL,),
        "direct_splits": (),
        "max_new_tokens": 256,
        "parts": {f"{task}_{kind}": {} for task in _TASKS for kind in ("sc", "qa")},
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read all tasks, or one. Every row is both trained on and asked again: train and val hold the same."""
        rows = []
        for scope in (FORGET, RETAIN):
            table = Table("", "LUME", scope, (f"data/{scope}", scope), ("id", "input", "output", "task"), _OBTAIN)
            for origin, record in table_records(table, path):
                task = str(record["task"]).lower()
                kind = re.search(r"(sc|qa)\d+$", str(record["id"]))
                if task not in _TASKS or kind is None:
                    raise DataError(
                        f"{origin}: task {record['task']!r}, id {record['id']!r}; a task is Task1, Task2 or Task3, and an id "
                        "ends in sc or qa with a number; name the released files in data.path"
                    )
                if domain not in (None, task):
                    continue
                question = text_column(record, "input", origin)
                pair = {
                    "question": question,
                    "answer": joined(question, text_column(record, "output", origin)),
                    "instance": str(record["id"])[: kind.start()].strip('"'),
                    "attribute": f"{task}_{kind.group(1)}",
                    "domain": "copyright" if task == "task1" else "privacy",
                }
                rows += [make_row(pair, origin, scope=scope, split=split) for split in SPLITS]
        return rows
