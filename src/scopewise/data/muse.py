"""MUSE (arXiv:2407.06460): news articles and the Harry Potter books, to be forgotten as text and as knowledge.

Source: hub datasets `muse-bench/MUSE-News` and `muse-bench/MUSE-Books`; configurations, splits and columns as in
swj0419/muse_bench at fcd6651 (`load_data.py`), whose own files are read too. docs/benchmarks.md has the details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scopewise.data.hub import Record, Table, joined, table_records, text_column, text_rows
from scopewise.data.rows import FORGET, HOLDOUT, RETAIN, TRAIN, VAL, BenchmarkLoader, Row, make_row
from scopewise.errors import DataError

_PIECE_WORDS = 1000
"""About 1,400 tokens; the reference trains on pieces of 2,048 tokens."""


class MUSE(BenchmarkLoader):
    """MUSE: news articles or books; verbatim continuation, questions after ten examples, privacy leakage."""

    name = "muse"
    repository: ClassVar[str] = "muse-bench/MUSE-"
    domains = ("news", "books")
    taught = (TRAIN,)
    data: ClassVar[Mapping[str, Any]] = {"prompt": "{question}", "max_length": 4096}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": ("rouge_l_generated", "extraction_strength", "exact_memorization", "mia_min_k", "privleak"),
        "splits": (VAL,),
        "generate_splits": (VAL,),
        "direct_splits": (),
        "parts": {
            "verbmem": {"max_new_tokens": 128},
            "knowmem": {"max_new_tokens": 32, "stop": ("\n\n", "\nQuestion", "Question:")},
            "privleak": {},
        },
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read one corpus. Raises DataError where none is named: the two have nothing to do with each other."""
        if domain is None:
            raise DataError(
                "data.domain: none given; muse has news and books; set data.domain=news or data.domain=books"
            )

        def table(config: str, split: str, *columns: str) -> list[Record]:
            title = self.repository + domain.capitalize()
            files = (f"{config}/{split}", f"{domain}/{config}/{split}", f"MUSE-{domain.capitalize()}/{config}/{split}")
            return table_records(Table(title, config, split, files, columns), path)

        rows = text_rows(table("raw", "forget", "text"), FORGET, "copyright", _PIECE_WORDS)
        rows += text_rows(table("raw", "retain1", "text"), RETAIN, "copyright", _PIECE_WORDS)
        for origin, record in table("verbmem", "forget", "prompt", "gt"):
            prompt, text = text_column(record, "prompt", origin), text_column(record, "gt", origin)
            rows.append(_asked(prompt, joined(prompt, text), origin, FORGET, "verbmem"))
        for scope in (FORGET, RETAIN):
            columns = ("question", "answer")
            examples = table("knowmem", f"{scope}_qa_icl", *columns)
            before = "".join(f"{_question(r, o)}{text_column(r, 'answer', o)}\n\n" for o, r in examples)
            for origin, record in table("knowmem", f"{scope}_qa", *columns):
                answer = text_column(record, "answer", origin)
                rows.append(_asked(before + _question(record, origin), answer, origin, scope, "knowmem"))
        for scope in (FORGET, HOLDOUT):
            rows += text_rows(table("privleak", scope, "text"), scope, "copyright", None, VAL, "privleak")
        return rows


def _question(record: Mapping[str, Any], origin: str) -> str:
    return f"Question: {text_column(record, 'question', origin)}\nAnswer: "


def _asked(question: str, answer: str, origin: str, scope: str, attribute: str) -> Row:
    pair = {"question": question, "answer": answer}
    return make_row(pair, origin, scope=scope, split=VAL, attribute=attribute, domain="copyright")
