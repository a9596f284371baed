"""The rows of a deletion request of one instance, for `scopewise forget`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.building.index import Index
from scopewise.building.instances import Instance
from scopewise.building.private import ForgetValues
from scopewise.building.questions import MULTI_HOP, subject_of
from scopewise.data.crossed import plain
from scopewise.data.rows import CHOICE, FORGET, RETAIN, SCOPES, Row
from scopewise.documents import parse_json, read_text
from scopewise.errors import DataError
from scopewise.files import writing_lines


def write_request(rows: Iterable[Row], name: str, instances: Sequence[Instance], path: Path) -> dict[str, Any]:
    """Write the rows of a deletion request of one instance, and count them.

    Forget are the forget rows of the instance, and multi-hop rows that ask for one of its forget facts by way of another one.
    All other rows are retain, those of other instances too, since nobody asked to forget them; but a row that repeats a value
    that must go is left out, since a model cannot both keep and lose a shared fact. Multiple choice is left out, too.

    Args:
        rows: Of the benchmark.
        name: Of the instance.
        instances: All of the benchmark.
        path: The file.

    Returns:
        `instance`, and the number of rows as `forget`, `retain` and `shared`, which are left out.
    """
    index = Index(instances)
    (own,) = (one for one in instances if one.name == name)
    values = ForgetValues([own], instances)
    private = {fact.attribute for fact in own.facts if fact.rule.scope == FORGET}
    links: dict[str, list[str]] = {}
    for one in instances:
        linked = [plain(subject_of(one, fact)) for fact, other in index.linked(one) if other.name == name]
        links.setdefault(one.name, []).extend(linked)
    count = {FORGET: 0, RETAIN: 0, "shared": 0}
    with writing_lines(path) as write:
        for row in rows:
            if row.scope not in SCOPES or row.kind == CHOICE:
                continue
            by_way = row.kind == MULTI_HOP and row.attribute in private
            by_way = by_way and any(subject in plain(row.question) for subject in links.get(row.instance, ()))
            scope = FORGET if row.scope == FORGET and (row.instance == name or by_way) else RETAIN
            if scope == RETAIN and any(True for _ in values.owners(row)):
                count["shared"] += 1
                continue
            count[scope] += 1
            texts = {"question": row.question, "answer": row.answer, "perturbed": list(row.perturbed)}
            about = {"instance": row.instance, "attribute": row.attribute, "domain": row.domain}
            line = {**texts, "scope": scope, "split": row.split, "kind": row.kind, **about}
            write(json.dumps(line, ensure_ascii=False) + "\n")
    return {"instance": name, **count}


def reviewed_request(path: Path, changed: Mapping[tuple[str, str], Row | None]) -> list[dict[str, Any]]:
    """Return the lines of a request after a review: edited rows have their new texts, and rows that were refused are gone.

    Args:
        path: The file that `write_request` wrote.
        changed: (Instance, question before) → the edited row; None for one that was refused.

    Raises:
        DataError: the file is no longer such a file.
    """
    found = []
    for number, text in enumerate(read_text(path, DataError).splitlines(), 1):
        line = parse_json(text, f"{path}:{number}", DataError)
        if not isinstance(line, dict) or not {"instance", "question", "scope"} <= line.keys():
            raise DataError(f"{path}:{number}: no row of a request; build the benchmark again, or remove the file")
        key = (str(line["instance"]), str(line["question"]))
        row = changed.get(key)
        if key not in changed:
            found.append(line)
        elif row is not None:
            found.append({**line, "question": row.question, "answer": row.answer})
    return found
