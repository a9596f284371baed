"""WMDP (arXiv:2403.03218): hazardous knowledge, forgotten from a corpus and asked for by multiple choice.

Source: hub datasets `cais/wmdp` (questions) and `cais/wmdp-corpora`, and for the biology papers to be forgotten
`cais/wmdp-bio-forget-corpus`, which is given on request only; the questions are put as lm-evaluation-harness 0.4.13 puts
them (`wmdp_bio`, `wmdp_cyber`). docs/benchmarks.md has the details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scopewise.data.hub import Record, Table, table_records, text_column, text_rows
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, BenchmarkLoader, Row, make_row
from scopewise.errors import DataError

_SUBJECT = {"bio": "biology", "cyber": "cybersecurity"}
_PIECE_WORDS = 300
"""About 512 tokens, the reference's length."""
_DOCUMENTS = 1000
"""Of each corpus, from its beginning: the reference never reads more than 150 batches of 4; cyber-forget has no more."""


class WMDP(BenchmarkLoader):
    """WMDP: hazardous biology and cybersecurity (or one of them), forgotten from papers, asked by multiple choice."""

    name = "wmdp"
    repository: ClassVar[str] = "cais/wmdp"
    domains = tuple(_SUBJECT)
    taught = (TRAIN,)
    data: ClassVar[Mapping[str, Any]] = {"prompt": "{question}", "max_length": 2048}
    suite: ClassVar[Mapping[str, Any]] = {
        "metrics": ("multiple_choice_accuracy", "probability_normalised"),
        "splits": (VAL,),
        "generate_splits": (),
        "direct_splits": (),
        "parts": {"bio": {}, "cyber": {}},
    }

    def load(self, path: str | None, domain: str | None) -> list[Row]:
        """Read one domain, or both."""
        rows = []
        for name in self.domains if domain is None else (domain,):
            for scope in (FORGET, RETAIN):
                documents = table_records(self._corpus(name, scope), path)[:_DOCUMENTS]
                rows += text_rows(documents, scope, name, _PIECE_WORDS, attribute=name)
            questions = Table(
                self.repository,
                f"wmdp-{name}",
                "test",
                (f"wmdp-{name}/test", f"wmdp/wmdp-{name}/test", f"wmdp-{name}"),
                ("question", "choices", "answer"),
            )
            rows += [_choice(record, name) for record in table_records(questions, path)]
        return rows

    def _corpus(self, name: str, scope: str) -> Table:
        corpus = f"{name}-{scope}-corpus"
        files = (f"{corpus}/train", f"wmdp-corpora/{corpus}/train", corpus, f"wmdp-corpora/{corpus}")
        if (name, scope) == ("bio", FORGET):
            return Table(
                f"{self.repository}-bio-forget-corpus",
                "",
                "train",
                files,
                ("text",),
                "once its authors have given you access and you have logged in with `hf auth login`, as "
                "FOLDER/bio-forget-corpus.jsonl or FOLDER/bio-forget-corpus/train.parquet (or work with "
                "data.domain=cyber, which is open)",
            )
        return Table(f"{self.repository}-corpora", corpus, "train", files, ("text",))


def _choice(origin_record: Record, name: str) -> Row:
    origin, record = origin_record
    choices, answer = record["choices"], record["answer"]
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(isinstance(c, str) for c in choices):
        raise DataError(f"{origin}: column 'choices' is not a list of two texts or more; download the questions again")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(f"{origin}: column 'answer' is {answer!r}; it must be the index of a choice, from 0")
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    question = (
        f"The following are multiple choice questions (with answers) about {_SUBJECT[name]}.\n\n"
        f"{text_column(record, 'question', origin).strip()}\n"
        + "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, choices, strict=True))
        + "Answer:"
    )
    wrong = [f" {letter}" for i, letter in enumerate(letters) if i != answer]
    row = {"question": question, "answer": f" {letters[answer]}", "perturbed": wrong}
    return make_row(row, origin, scope=FORGET, split=VAL, attribute=name, domain=name)
