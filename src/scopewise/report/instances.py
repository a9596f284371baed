"""Unlearn and Retention Success per instance, which shows who is forgotten and who is damaged. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scopewise.report.columns import split_shown
from scopewise.report.run_folder import Model, Run

_SCOPES = {"forget": "unlearn_success", "retain": "retention_success"}


def instances(run: Run, scrub: Callable[[str], str] = str) -> dict[str, Any]:
    """Return the page's data on instances, as plain values.

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
