"""What a redacted report knows of its runs: all rows of their data, and no local path. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scopewise.config import parse_config
from scopewise.errors import UserError
from scopewise.report.redact import FORGET, Redaction
from scopewise.report.run import Run

LOCAL = "[local path]"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_ALWAYS_LOCAL = ("run.dir", "data.path", "data.general", "unlearn.region")
_PATH_IN_TEXT = re.compile(r"(?<![\w/:.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\]{1,2}(?:[^\s'\"<>|:;,()\[\]]+)")


def without_paths(runs: Sequence[Run]) -> list[Run]:
    """Return runs whose name, settings and attacks hold no local path; a shipped benchmark or a hub name stays."""
    found = []
    for i, run in enumerate(runs, 1):
        results = dict(run.results)
        results["config"] = _hidden(results.get("config") or {}, "")
        results["manifest"] = _hidden(results["manifest"], "manifest")
        attacks = None if run.attacks is None else _in_texts(run.attacks)
        found.append(replace(run, name="run" if len(runs) == 1 else f"run {i}", results=results, attacks=attacks))
    return found


def _hidden(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {k: _hidden(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_hidden(v, key) for v in value]
    if not isinstance(value, str) or not value:
        return value
    if key in _ALWAYS_LOCAL:
        return LOCAL
    local = "\n" not in value and len(value) < 4096 and ("/" in value or "\\" in value) and _is_local(value)
    return LOCAL if local else _PATH_IN_TEXT.sub(LOCAL, value)


def _is_local(value: str) -> bool:
    if not _HUB_NAME.fullmatch(value):
        return not any(c.isspace() for c in value)
    try:
        return Path(value).exists()
    except (OSError, ValueError):
        return False


def _in_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: v if k == "model" else _in_texts(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_in_texts(v) for v in value]
    return _PATH_IN_TEXT.sub(LOCAL, value) if isinstance(value, str) else value


def redaction_of(runs: Sequence[Run], salt: str | None) -> tuple[Redaction, list[str]]:
    """Return the redaction of everything the runs' data say, and a sentence on each run whose data could not be read.

    Models answer the rows that were measured, often val alone; what they were taught are train rows.
    """
    rows: list[Mapping[str, Any]] = [row for run in runs for model in run.models for row in model.answers]
    missing = []
    for run in runs:
        try:
            rows += _data_rows(run)
        except (UserError, OSError) as error:
            reason = type(error).__name__
            missing.append(
                f"The data of {run.name} could not be read ({reason}): words that only its forget rows without an answer in "
                "this page hold are not hidden."
            )
    return Redaction(rows, salt), missing


def _data_rows(run: Run) -> list[dict[str, Any]]:
    """Return the rows of a run's benchmark. Raises UserError where they cannot be read."""
    from scopewise.data.load import load_benchmark

    data = parse_config(dict(run.results.get("config") or {})).data
    benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general)
    found = []
    for row in benchmark.rows:
        others = (row.paraphrase,) if row.scope == FORGET and row.paraphrase else ()
        found.append({"question": row.question, "answer": row.answer, "scope": row.scope, "others": others})
    return found
