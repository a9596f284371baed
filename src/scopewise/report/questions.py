"""Every question with every model's answer, and success per instance, as data of the page. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scopewise.report.columns import split_shown
from scopewise.report.redact import FORGET, Open, Redaction
from scopewise.report.run_folder import Model, Run

LARGEST_BYTES = 2_400_000
"""Size limit of the questions in a page; above it, the page keeps one seed of each method."""
_SCOPES = {"forget": "unlearn_success", "retain": "retention_success"}


def questions(runs: Sequence[Run], redaction: Redaction | Open) -> dict[str, Any]:
    """Return the page's data on questions, as plain values.

    Returns:
        `models`: `label`, `run` (its name), `role`, `seed` of each; `rows`: `q` question, `w` words of the true answer,
        `s` scope, `p` split, `i` instance, `a` attribute; `texts`: every generated text once; `cells`: for each model
        its `words` (for each row two hexadecimal digits per word, 255 = certain; null if it did not answer the row) and
        its `texts` (for each row an index, null if nothing was generated); `one_seed`: whether seeds were left out.
    """
    every = [(run, model) for run in runs for model in run.models if model.answers]
    packed = _packed(every, runs, redaction)
    if len(json.dumps(packed, ensure_ascii=False)) <= LARGEST_BYTES:
        return {**packed, "one_seed": False}
    first: dict[tuple[str, str, str], tuple[Run, Model]] = {}
    for run, model in every:
        first.setdefault((run.name, *model.group), (run, model))
    return {**_packed(list(first.values()), runs, redaction), "one_seed": len(first) < len(every)}


def _packed(chosen: Sequence[tuple[Run, Model]], runs: Sequence[Run], redaction: Redaction | Open) -> dict[str, Any]:
    rows: dict[tuple[str, ...], int] = {}
    shown: list[dict[str, Any]] = []
    texts: dict[str, int] = {}
    models, cells = [], []
    for run, model in chosen:
        label = run.label(model.group)
        if sum(other.group == model.group for other in run.models) > 1:
            label += f", seed {model.row['seed']}"
        models.append({"label": label, "run": run.name, "role": model.row["model"], "seed": model.row["seed"]})
        words: dict[int, str] = {}
        generated: dict[int, int] = {}
        for answer in model.answers:
            parts = _words(answer["tokens"], answer["probabilities"])
            key = (answer["question"], answer["answer"], answer["scope"], answer["split"], *(word for word, _ in parts))
            index = rows.setdefault(key, len(rows))
            if index == len(shown):
                shown.append(_row(answer, [word for word, _ in parts], redaction))
            words[index] = "".join(f"{round(255 * p):02x}" for _, p in parts)
            if answer["generated"] is not None:
                hidden = redaction.hide if answer["scope"] == FORGET else redaction.scrub
                generated[index] = texts.setdefault(hidden(answer["generated"]), len(texts))
        cells.append((words, generated))
    return {
        "models": models,
        "runs": [run.name for run in runs],
        "rows": shown,
        "texts": list(texts),
        "cells": [
            {"words": [w.get(i) for i in range(len(rows))], "texts": [g.get(i) for i in range(len(rows))]}
            for w, g in cells
        ],
    }


def _row(answer: Mapping[str, Any], words: Sequence[str], redaction: Redaction | Open) -> dict[str, Any]:
    forget = answer["scope"] == FORGET
    hidden = forget and isinstance(redaction, Redaction)
    return {
        "q": answer["question"],
        "w": ["▮"] * len(words) if hidden else list(words),
        "h": redaction.hide(answer["answer"]) if hidden else "",
        "s": answer["scope"],
        "p": answer["split"],
        "i": redaction.scrub(answer["instance"]),
        "a": redaction.scrub(answer["attribute"]),
    }


def _words(tokens: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    """Return the words of an answer, each with its probability: the product over its tokens.

    A token that begins with a space begins a word, which keeps that space.
    """
    words: list[tuple[str, float]] = []
    for token, probability in zip(tokens, probabilities, strict=True):
        if not words or token[:1].isspace():
            words.append((token, probability))
        else:
            text, so_far = words[-1]
            words[-1] = (text + token, so_far * probability)
    return words


def instances(run: Run, scrub: Callable[[str], str] = str) -> dict[str, Any]:
    """Return the page's data on instances, which shows who is forgotten and who is damaged, as plain values.

    Args:
        run: The run.
        scrub: Applied to names: a redaction hides text that only forget answers have.

    Returns:
        `names`: instances; `rows`: the number of rows of each in the forget and in the retain scope; `models`: the
        `label` and `role` of each method and, for each instance, the mean of Unlearn and of Retention Success over rows
        and seeds (null without rows). Empty if no row names an instance.
    """
    split = split_shown(run.results)
    counts: dict[str, dict[str, int]] = {}
    models = []
    for group, members in run.groups().items():
        found = [_successes(model, split) for model in members]
        for scope in _SCOPES:
            for name, values in (found[0][scope] if found else {}).items():
                counts.setdefault(name, {})[scope] = len(values)
        models.append((run.label(group), members[0].row["model"], found))
    counts.pop("", None)
    if not counts:
        return {}
    names = sorted(counts)
    return {
        "names": [scrub(name) for name in names],
        "rows": [[counts[name].get(scope, 0) for scope in _SCOPES] for name in names],
        "models": [
            {
                "label": label,
                "role": role,
                "values": [[_mean(found, scope, name) for scope in _SCOPES] for name in names],
            }
            for label, role, found in models
            if any(found_one[scope] for found_one in found for scope in _SCOPES)
        ],
    }


def _successes(model: Model, split: str) -> dict[str, dict[str, list[float]]]:
    """Return scope → instance → values of its rows."""
    found: dict[str, dict[str, list[float]]] = {scope: {} for scope in _SCOPES}
    for scope, metric in _SCOPES.items():
        rows = [row for row in model.answers if row["scope"] == scope and row["split"] == split]
        values: Mapping[str, Any] = model.values.get(f"{metric}/{split}", {})
        per_row: Sequence[float | None] = values.get("per_row", ())
        if len(rows) != len(per_row):  # the document lists other rows than were scored: no value can be assigned
            continue
        for row, value in zip(rows, per_row, strict=True):
            if value is not None:
                found[scope].setdefault(row["instance"], []).append(value)
    return found


def _mean(found: Sequence[dict[str, dict[str, list[float]]]], scope: str, name: str) -> float | None:
    values = [v for one in found for v in one[scope].get(name, [])]
    return round(statistics.fmean(values), 1) if values else None
