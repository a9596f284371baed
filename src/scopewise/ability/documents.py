"""Read the questions of the paper's general tasks from local files, with the columns of the hub's datasets.

The harness's own task makes prompt, choices and score of them, so that local files and the hub give the same number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scopewise.data.rows import read_json_lines
from scopewise.documents import read_json, read_text
from scopewise.errors import DataError

Document = dict[str, Any]


@dataclass(frozen=True)
class LocalTask:
    """A task that can be read from local files.

    Attributes:
        dataset: Its dataset on the hub.
        columns: Columns that the harness reads.
        split: The split that is evaluated.
        lines: JSON-lines file in the folder with these columns, one question per line.
        released: File or folder of the original release, relative to the folder; empty if we read none.
        read: Reads the original release.
    """

    dataset: str
    columns: tuple[str, ...]
    split: str
    lines: str
    released: str = ""
    read: Callable[[Path], list[Document]] | None = None


def documents(task: str, folder: str | Path) -> list[Document]:
    """Return the questions of a task.

    Raises:
        DataError: the folder has none of the task's files, or one of them is broken.
    """
    known, folder = LOCAL_TASKS[task], Path(folder)
    lines = folder / known.lines
    if lines.is_file():
        found = [_checked(record, known, f"{lines}:{number}") for number, record in read_json_lines(lines)]
    elif known.read is not None and (folder / known.released).exists():
        found = known.read(folder / known.released)
    else:
        other = f" or {known.released}" if known.released else ""
        raise DataError(
            f"evaluate.ability.path: {folder} has no {known.lines}{other} for {task}; save {known.dataset} of the hub as "
            f"JSON lines with the columns {', '.join(known.columns)}, or leave {task} out of evaluate.ability.tasks"
        )
    if not found:
        raise DataError(f"evaluate.ability.path: {folder}: no question of {task}; give a file with at least one")
    return found


def _checked(record: object, known: LocalTask, where: str) -> Document:
    missing = [c for c in known.columns if c not in record] if isinstance(record, dict) else list(known.columns)
    if missing:
        raise DataError(f"{where}: no {', '.join(missing)}; a line has the columns {', '.join(known.columns)}")
    assert isinstance(record, dict)
    return record


def _mmlu(folder: Path) -> list[Document]:
    """Read SUBJECT_test.csv and SUBJECT_dev.csv, with a header (answer 0-3) or as first released (no header, A-D)."""
    found: list[Document] = []
    for split in ("test", "dev"):
        for path in sorted((folder / split).glob(f"*_{split}.csv")):
            table = list(csv.reader(io.StringIO(read_text(path, DataError))))
            first = 1 if table and table[0][:1] == ["question"] else 0
            for number, cells in enumerate(table[first:], start=first + 1):
                answer = "ABCD".find(cells[-1]) if len(cells) == 6 and cells[-1] in "ABCD" else _index(cells[-1:])
                if len(cells) != 6 or not 0 <= answer < 4:
                    raise DataError(f"{path}, record {number}: a record is question, four choices, and 0-3 or A-D")
                subject = path.name.removesuffix(f"_{split}.csv")
                question = {"question": cells[0], "choices": cells[1:5], "answer": answer}
                found.append({"subject": subject, "split": split, **question})
    return found


def _index(cells: list[str]) -> int:
    return int(cells[0]) if cells and cells[0].isdigit() else -1


_CHOSEN = re.compile(
    r"Please choose the correct answer to the question: (.*?)\n\n(Answer1: .*)\n\nAnswer format: ", re.S
)


def _chosen(path: Path) -> list[tuple[str, list[str], int]]:
    """Read question, choices and index of the right one from the files of LLM-Adapters (arXiv:2304.01933)."""
    records = read_json(path, DataError)
    if not isinstance(records, list):
        raise DataError(f"{path}: {type(records).__name__}; a list of questions is expected; download it again")
    found = []
    for i, record in enumerate(records):
        matched = _CHOSEN.match(record.get("instruction", "")) if isinstance(record, dict) else None
        choices = [c.strip() for c in re.split(r"Answer\d+: ", matched[2])[1:]] if matched else []
        answer = re.fullmatch(r"answer(\d+)", record.get("answer", "")) if matched else None
        if not matched or not answer or not 1 <= int(answer[1]) <= len(choices) or not all(choices):
            raise DataError(
                f'{path}[{i}]: "instruction" holds a question and "Answer1: … Answer2: …", "answer" the right one as answer2'
            )
        found.append((matched[1], choices, int(answer[1]) - 1))
    return found


def _arc(path: Path) -> list[Document]:
    found: list[Document] = []
    for question, choices, right in _chosen(path):
        labels = "ABCDEFGH"[: len(choices)]
        found.append(
            {"question": question, "choices": {"text": choices, "label": list(labels)}, "answerKey": labels[right]}
        )
    return found


def _social_iqa(path: Path) -> list[Document]:
    """Split at any blank: context and question are one text there, and the harness joins them with a blank again."""
    found: list[Document] = []
    for text, choices, right in _chosen(path):
        context, _, question = text.rpartition(" ")
        answers = dict(zip(("answerA", "answerB", "answerC"), choices, strict=True))
        found.append({"context": context, "question": question, **answers, "label": str(right + 1)})
    return found


def _truthfulqa(path: Path) -> list[Document]:
    """Read the authors' CSV: mc1 is the best answer against the wrong ones, mc2 all right ones against them.

    Each answer ends with a full stop, as in the authors' code (sylinrl/TruthfulQA), which made the hub's dataset.
    """
    reader = csv.DictReader(io.StringIO(read_text(path, DataError)))
    found: list[Document] = []
    for record in reader:
        where = f"{path}:{reader.line_num}"
        columns = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
        if not all(record.get(c) for c in columns):
            raise DataError(f"{where}: needs the columns {', '.join(columns)}, none of them empty")
        best, (right, wrong) = _stopped(record["Best Answer"]), (_answers(record[c]) for c in columns[2:])
        mc1 = {"choices": [best, *wrong], "labels": [1] + [0] * len(wrong)}
        mc2 = {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}
        found.append({"question": record["Question"].strip(), "mc1_targets": mc1, "mc2_targets": mc2})
    return found


def _answers(text: str) -> list[str]:
    return list(dict.fromkeys(_stopped(part) for part in text.split(";") if part.strip()))


def _stopped(text: str) -> str:
    return text.strip() if text.strip().endswith(".") else f"{text.strip()}."


def _wikitext(path: Path) -> list[Document]:
    """Split the text of WikiText-2 into its articles, each with its heading ` = Title = `, as the hub's dataset has them."""
    parts = re.split(r"(?m)^(?= = [^=\n]+ = ?$)", read_text(path, DataError))
    return [{"page": part} for part in parts if part.strip()]


_TRUTHFULQA = ("truthfulqa/truthful_qa", ("question", "mc1_targets", "mc2_targets"), "validation", "truthfulqa.jsonl")

LOCAL_TASKS: Mapping[str, LocalTask] = {
    "mmlu": LocalTask("cais/mmlu", ("question", "subject", "choices", "answer"), "test", "mmlu.jsonl", "mmlu", _mmlu),
    "arc_challenge": LocalTask(
        "allenai/ai2_arc (ARC-Challenge)",
        ("question", "choices", "answerKey"),
        "test",
        "arc_challenge.jsonl",
        "commonsense/ARC-Challenge_test.json",
        _arc,
    ),
    "truthfulqa_mc1": LocalTask(*_TRUTHFULQA, "truthfulqa/TruthfulQA.csv", _truthfulqa),
    "truthfulqa_mc2": LocalTask(*_TRUTHFULQA, "truthfulqa/TruthfulQA.csv", _truthfulqa),
    "social_iqa": LocalTask(
        "lighteval/siqa",
        ("context", "question", "answerA", "answerB", "answerC", "label"),
        "validation",
        "social_iqa.jsonl",
        "commonsense/social_i_qa_test.json",
        _social_iqa,
    ),
    "race": LocalTask("EleutherAI/race (high)", ("article", "problems"), "test", "race.jsonl"),
    "wikitext": LocalTask(
        "EleutherAI/wikitext_document_level (wikitext-2-raw-v1)",
        ("page",),
        "test",
        "wikitext.jsonl",
        "wikitext2/test.txt",
        _wikitext,
    ),
}
"""Harness task → its local files."""
