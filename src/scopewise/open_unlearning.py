"""Reads the logs of OpenUnlearning (`*_EVAL.json`), so that its results can be compared with ours.

Source: locuslab/open-unlearning d3d7cf9 `src/evals`: one entry per metric, `{"agg_value": number or null, "value_by_index":
{"0": {...}, ...}}`; NaN may stand in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scopewise.errors import ResultError
from scopewise.metrics.base import Value

_SETS = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_ROW_METRICS = {
    "Q_A_Prob": ("probability", "prob"),
    "Q_A_Prob_normalised": ("probability_normalised", "prob"),
    "Q_A_PARA_Prob": ("probability_paraphrase", "prob"),
    "Q_A_ROUGE": ("rouge_l_recall", "rougeL_recall"),
    "Q_A_gibberish": ("fluency", "score"),
}
_OTHERS = {
    "extraction_strength": "extraction_strength/forget",
    "exact_memorization": "exact_memorization/forget",
    "forget_quality": "forget_quality/",
    "model_utility": "model_utility/",
    "privleak": "privleak/",
    "rel_diff": "rel_diff/",
    "mia_loss": "mia_loss/",
    "mia_zlib": "mia_zlib/",
    "mia_reference": "mia_reference/",
    "mia_gradnorm": "mia_gradnorm/",
    "mia_min_k": "mia_min_k/",
    "mia_min_k_plus_plus": "mia_min_k_plus_plus/",
}


def is_log_entry(entry: Any) -> bool:
    """Return whether this is an entry of such a log."""
    return isinstance(entry, dict) and "agg_value" in entry


def values_of_log(log: Mapping[str, Any], split: str = "val") -> dict[str, Value]:
    """Return the values of a log under our keys; metrics that we do not have keep their own names.

    Rows are in the log's order, which differs between releases of the data: pair them by question, never by index.

    Args:
        log: The decoded file.
        split: Split that the keys name.

    Raises:
        ResultError: an entry has another form than in such a log; the message names it.
    """
    found: dict[str, Value] = {}
    for name, entry in log.items():
        _check(name, entry)
        if not is_log_entry(entry):
            continue
        short, _, rest = name.partition("_")
        scope = _SETS.get(short)
        rows = list((entry.get("value_by_index") or {}).values())
        if scope and rest in _ROW_METRICS:
            ours, field = _ROW_METRICS[rest]
            found[f"{ours}/{scope}_{split}"] = _value(entry, [row.get(field) for row in rows])
        elif scope and rest.lower() == "truth_ratio":
            ratios = [_number(row.get("score")) for row in rows]
            if scope == "forget":
                found[f"truth_ratio_forget/{split}"] = _value(entry, [])
                found[f"truth_ratio_raw/{split}"] = _value({"agg_value": None}, ratios)
            else:
                found[f"truth_ratio_retain/{scope}_{split}"] = _value(entry, [])
        elif name in _OTHERS:
            separator = "" if _OTHERS[name].endswith("/") else "_"
            found[f"{_OTHERS[name]}{separator}{split}"] = _value(entry, [row.get("score") for row in rows])
        else:
            found[f"{name}/{split}"] = _value(entry, [])
    return found


def _check(name: str, entry: Any) -> None:
    """Raise ResultError if an entry is not a mapping, or its values are not numbers."""
    if not isinstance(entry, dict):
        raise ResultError(
            f"{name!r}: {type(entry).__name__}; an entry is a mapping with 'agg_value'; write the log again"
        )
    rows = entry.get("value_by_index") or {}
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ResultError(f"{name!r}: 'value_by_index' is not a mapping of mappings; write the log again")
    read = {"score", *(field for _, field in _ROW_METRICS.values())}
    numbers = [entry.get("agg_value"), *(row[field] for row in rows.values() for field in read & row.keys())]
    if any(x is not None and (isinstance(x, bool) or not isinstance(x, int | float)) for x in numbers):
        raise ResultError(f"{name!r}: a value is not a number; write the log again")


def _value(entry: Mapping[str, Any], rows: list[Any]) -> Value:
    return Value(_number(entry["agg_value"]), tuple(_number(row) for row in rows), note="from an OpenUnlearning log")


def _number(x: Any) -> float | None:
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) else None
