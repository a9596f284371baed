"""A person's review of rows: a CSV file of yes, no and edits, and how it is merged back."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from scopewise.building.datasheet import Counts, check_datasheet, read_datasheet, write_datasheet
from scopewise.building.layouts import LAYOUTS, numbered_lines, read_rows, write_layout
from scopewise.building.make import CHECKS, FACTS, LEFT_OUT, ROWS, line_of
from scopewise.building.private import parts_of
from scopewise.building.requests import reviewed_request
from scopewise.building.values import is_safe
from scopewise.data.crossed import plain
from scopewise.data.rows import CHOICE, FORGET, RETAIN, SCOPES, TRAIN, Row
from scopewise.documents import parse_json, read_text
from scopewise.errors import DataError
from scopewise.files import write_text, writing_lines

FILE = "review.csv"
YES, NO, EDIT = "yes", "no", "edit"
VERDICTS = ("", YES, NO, EDIT)
_FORMULA = ("=", "+", "-", "@", "\t")
"""Beginnings of cells that a spreadsheet would calculate."""


@dataclass(frozen=True)
class Reviewed:
    """A row as the review file has it.

    Attributes:
        row: Its number in `rows.jsonl`, from 1.
        hash: Of question and answer, by which a changed row is found.
        scope, split, kind, instance, attribute, question, answer: Of the row, to be read.
        verdict: One of `VERDICTS`; empty if it was not judged.
        new_question, new_answer: With `edit`: what is to stand in their place; empty keeps the old.
        note: What the reviewer remarks.
    """

    row: int
    hash: str
    scope: str
    split: str
    kind: str
    instance: str
    attribute: str
    question: str
    answer: str
    verdict: str = ""
    new_question: str = ""
    new_answer: str = ""
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Reviewed))


def sampled(folder: Path, count: int | None, seed: int = 0) -> list[Reviewed]:
    """Return rows to be reviewed: `count` of both scopes, drawn at random (None: all), in the order of the benchmark.

    Rows that an earlier review has judged are drawn only if there are no others.

    Raises:
        DataError: the folder is not one of `scopewise build`.
    """
    read_datasheet(folder)
    judged = {n for n, line in numbered_lines(folder / CHECKS) if "review" in _check_of(folder / CHECKS, n, line)}
    numbers = [number for number, row in enumerate(read_rows(folder / ROWS), 1) if row.scope in SCOPES]
    random.Random(seed).shuffle(numbers)
    drawn = set(sorted(numbers, key=lambda number: number in judged)[:count])
    found = list[Reviewed]()
    for number, row in enumerate(read_rows(folder / ROWS), 1):
        if number in drawn:
            shown = {name: getattr(row, name) for name in COLUMNS[2:9]}
            found.append(Reviewed(number, hash_of(row), **shown))
    return found


def hash_of(row: Row) -> str:
    """Return the beginning of the SHA-256 of a row's question and answer."""
    return hashlib.sha256(f"{row.question}\0{row.answer}".encode()).hexdigest()[:16]


def write_review(path: Path, reviewed: Iterable[Reviewed]) -> None:
    """Write the review file. A cell that a spreadsheet would calculate begins with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in reviewed:
        writer.writerow([_quoted(str(getattr(one, name))) for name in COLUMNS])
    write_text(path, text.getvalue())


def read_review(path: Path) -> list[Reviewed]:
    """Return the rows of a review file.

    Raises:
        DataError: another header, an unknown verdict, an edit without a text, or a text that cannot be a row's.
    """
    reader = csv.reader(io.StringIO(read_text(path, DataError, "--file"), newline=""))
    header = tuple(next(reader, ()))
    if header != COLUMNS:
        raise DataError(
            f"{path}: the header is {', '.join(header)[:80]!r}; it must be {', '.join(COLUMNS)}; restore it"
        )
    return [_reviewed(cells, f"{path}:{reader.line_num}") for cells in reader if cells]


def merge(folder: Path, path: Path) -> dict[str, Any]:
    """Apply a review file to a benchmark, and return its new datasheet, which counts the verdicts.

    Rows with `no` move to `left_out.jsonl`, edits take the place of the old texts, and `checks.jsonl` has each verdict. The
    rows of requests are edited and left out in the same way, and other layouts are written anew.

    Raises:
        DataError: the file does not fit the benchmark (any more), an edited question is there already, or an instance would
            lose its train rows of a scope; the benchmark is then unchanged.
    """
    sheet = read_datasheet(folder)
    check_datasheet(folder, sheet)
    verdicts = {one.row: one for one in read_review(path)}
    _check(folder, path, verdicts)
    counts, reviews = Counts(), Counter[str]()
    changed = dict[tuple[str, str], Row | None]()
    left, ranked = _left_out(folder / LEFT_OUT), 0
    with ExitStack() as stack:
        row_line, check_line, left_line = (
            stack.enter_context(writing_lines(folder / name)) for name in (ROWS, CHECKS, LEFT_OUT)
        )
        for row, (number, line) in zip(read_rows(folder / ROWS), numbered_lines(folder / CHECKS), strict=True):
            one = verdicts.get(number)
            if one and one.verdict == NO:
                left.append({"failed": ["review"], **json.loads(line_of(row))})
                changed[row.instance, row.question] = None
                continue
            if one and one.verdict == EDIT:
                before, row = row, edited(row, one)
                changed[before.instance, before.question] = row
            counts.add(row)
            ranked += row.scope in SCOPES and row.kind != CHOICE
            row_line(line_of(row))
            check = _check_of(folder / CHECKS, number, line) | {"row": sum(counts.places.values())}
            if one and one.verdict:
                check |= {"review": one.verdict} | ({"note": one.note} if one.note else {})
            reviews[check.get("review", "")] += 1
            check_line(json.dumps(check, ensure_ascii=False) + "\n")
        for record in left:
            left_line(json.dumps(record, ensure_ascii=False) + "\n")
        requests = [
            _review_request(folder, n, one, changed, ranked, stack)
            for n, one in enumerate(sheet.get("requests", ()), 1)
        ]
    reviews[NO] = sum("review" in record["failed"] for record in left)
    named = {"yes": reviews[YES], "no": reviews[NO], "edited": reviews[EDIT], "not reviewed": reviews[""]}
    sheet |= {"counts": counts.describe(), "review": named, "left_out": sum("question" in record for record in left)}
    sheet |= {"requests": requests} if requests else {}
    for layout in LAYOUTS:
        if any(str(name).startswith(f"{layout}/") for name in sheet.get("files", ())):
            write_layout(layout, lambda: read_rows(folder / ROWS), folder / layout, folder.name, folder / ROWS)
    write_datasheet(folder, sheet)
    return sheet


def _review_request(
    folder: Path,
    number: int,
    request: dict[str, Any],
    changed: Mapping[tuple[str, str], Row | None],
    ranked: int,
    stack: ExitStack,
) -> dict[str, Any]:
    """Write the rows of a request after the review when the stack ends, and return what the datasheet says of it.

    Of the benchmark's rows that a request may have (`ranked`), those that it does not have repeat a value.
    """
    path = folder / "requests" / f"{number}.jsonl"
    if not path.is_file():
        return request
    rows = reviewed_request(path, changed)
    write = stack.enter_context(writing_lines(path))
    for line in rows:
        write(json.dumps(line, ensure_ascii=False) + "\n")
    count = {scope: sum(line["scope"] == scope for line in rows) for scope in SCOPES}
    return request | count | {"shared": max(0, ranked - sum(count.values()))}


def _left_out(path: Path) -> list[dict[str, Any]]:
    """Return the lines of what was left out. Raises DataError if one is no such line."""
    found = []
    for number, line in numbered_lines(path):
        record = parse_json(line, f"{path}:{number}", DataError)
        if not isinstance(record, dict) or not isinstance(record.get("failed"), list):
            raise DataError(f"{path}:{number}: no row that was left out; build the benchmark again, with --overwrite")
        found.append(record)
    return found


def _check_of(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return the checks of a row. Raises DataError if the line has none."""
    record = parse_json(line, f"{path}:{number}", DataError)
    if not isinstance(record, dict):
        raise DataError(f"{path}:{number}: no checks of a row; build the benchmark again, with --overwrite")
    return record


def edited(row: Row, one: Reviewed) -> Row:
    """Return a row with the texts of an edit; an answer of its own has no paraphrase and no other wording any more."""
    if one.verdict != EDIT:
        return row
    row = replace(row, question=one.new_question or row.question)
    return replace(row, answer=one.new_answer, paraphrase="") if one.new_answer else row


def check_fit(folder: Path, path: Path, reviewed: Iterable[Reviewed]) -> None:
    """Raise DataError if a review is of other rows than those of the benchmark."""
    left, last = {one.row: one for one in reviewed}, 0
    for number, row in enumerate(read_rows(folder / ROWS), 1):
        last, one = number, left.pop(number, None)
        if one and one.hash != hash_of(row):
            raise DataError(
                f"{path}: row {number} is {one.question[:60]!r}, and in {folder / ROWS} {row.question[:60]!r}; the "
                "benchmark was changed since, perhaps by a merge; write the review file anew, with --overwrite"
            )
    if left:
        raise DataError(
            f"{path}: row {min(left)}, and {folder / ROWS} has {last}; write the file anew, with --overwrite"
        )


def _check(folder: Path, path: Path, verdicts: Mapping[int, Reviewed]) -> None:
    """Raise DataError if a review does not fit the rows, or would break them."""
    check_fit(folder, path, verdicts.values())
    asked, left, had, last = dict[str, int](), set[tuple[str, str]](), set[tuple[str, str]](), 0
    for number, row in enumerate(read_rows(folder / ROWS), 1):
        last, one = number, verdicts.get(number)
        place = (row.instance, row.scope)
        had |= {place} if row.split == TRAIN and row.scope in SCOPES else set()
        if one and one.verdict == NO:
            continue
        row = edited(row, one) if one else row
        if one and one.verdict == EDIT and row.scope == RETAIN:
            _check_private(folder, row, f"{path}: row {number}")
        first = asked.setdefault(plain(row.question), number)
        if first != number and (one or verdicts.get(first)):
            raise DataError(
                f"{path}: row {number}: the question is also that of row {first}; word one of them otherwise"
            )
        left |= {place} if row.split == TRAIN else set()
    if (checked := sum(1 for _ in numbered_lines(folder / CHECKS))) != last:
        raise DataError(
            f"{folder / CHECKS}: {checked} lines, and {folder / ROWS} has {last}; build the benchmark again, with --overwrite"
        )
    if lost := sorted(had - left):
        raise DataError(
            f"{path}: no {lost[0][1]} train row of {lost[0][0]} would be left; keep one, or build without the instance"
        )


def _check_private(folder: Path, row: Row, where: str) -> None:
    """Raise DataError if a retain row repeats a value that must go, of any instance.

    As in a build, of a list also one of its names; a value that is the name of an instance counts only in its owner's rows.
    """
    facts = [parse_json(line, str(folder / FACTS), DataError) for _, line in numbered_lines(folder / FACTS)]
    names, text = {plain(fact["instance"]) for fact in facts}, f" {plain(f'{row.question} {row.answer}')} "
    for fact in (fact for fact in facts if fact["scope"] == FORGET):
        listed = [one for one in re.split(r", | and ", fact["value"]) if " " in one]
        for value in (fact["value"], *listed):
            counts = plain(value) not in names or fact["instance"] == row.instance
            if counts and any(f" {part} " in text for part in parts_of(value)):
                raise DataError(
                    f"{where}: the edit of a retain row repeats {fact['attribute']} of {fact['instance']}, which must go; word "
                    "it otherwise"
                )


def _reviewed(cells: list[str], where: str) -> Reviewed:
    if len(cells) != len(COLUMNS):
        raise DataError(f"{where}: {len(cells)} cells, and the header has {len(COLUMNS)}; restore the columns")
    given: dict[str, Any] = {name: _unquoted(cell) for name, cell in zip(COLUMNS, cells, strict=True)}
    if not given["row"].isdigit() or int(given["row"]) < 1:
        raise DataError(f"{where}: row {given['row'][:20]!r}; it is a number from 1; restore it")
    one = Reviewed(**{**given, "row": int(given["row"]), "verdict": given["verdict"].strip().lower()})
    check_verdict(one, where)
    return one


def check_verdict(one: Reviewed, where: str) -> None:
    """Raise DataError if a verdict is unknown, or an edit cannot be taken."""
    if one.verdict not in VERDICTS:
        raise DataError(f"{where}: verdict {one.verdict[:20]!r}; it is yes, no, edit or empty; correct it")
    if one.verdict == EDIT and not (one.new_question.strip() or one.new_answer.strip()):
        raise DataError(f"{where}: edit without a text; fill new_question or new_answer, or write yes or no")
    for name in ("new_question", "new_answer", "note"):
        text = getattr(one, name)
        if text and (not text.strip() or not is_safe(text) or len(text) > 2000):
            raise DataError(
                f"{where}: {name} has a control character, only spaces, or over 2000 characters; correct it"
            )


def _quoted(cell: str) -> str:
    return f"'{cell}" if cell.startswith((*_FORMULA, "'")) else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell


def lines(reviewed: Iterable[Reviewed]) -> Iterator[dict[str, Any]]:
    """Yield what the page gets of each row."""
    for one in reviewed:
        yield {name: getattr(one, name) for name in COLUMNS}
