"""Compare methods with each other and with the oracle, with paired confidence intervals. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scopewise.statistics import mean_of, resample


def compare(rows: Sequence[Mapping[str, Any]], values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the `comparisons` of `results.json`: intervals, oracle gap and differences between methods.

    Args:
        rows: The rows of `results.json`.
        values: The evaluation document of each row: metric key → value with `per_row`.

    Returns:
        One object per method and protocol, with three kinds of intervals. `success`: Unlearn, Retention and Average
        Success. `oracle_gap`: mean absolute distance of Unlearn and Retention Success to the oracle's, in points.
        `differences`: Average Success minus that of every other method of the protocol, paired by row and seed.
    """
    split = "val" if any(key.endswith("/val") for value in values for key in value) else "train"
    keys = {name: f"{name}/{split}" for name in ("unlearn_success", "retention_success")}
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for row, value in zip(rows, values, strict=True):
        if all(value.get(key, {}).get("per_row") for key in keys.values()):
            groups.setdefault((row["method"], row["protocol"]), []).append(value)
    parts = {
        group: {
            name: resample([[x for x in model[key]["per_row"] if x is not None] for model in models])
            for name, key in keys.items()
        }
        for group, models in groups.items()
    }
    average = {group: mean_of(list(part.values())) for group, part in parts.items()}
    oracle = parts.get(("oracle", None))
    found = []
    for (method, protocol), part in parts.items():
        success = {**part, "average_success": average[method, protocol]}
        gap = None if oracle is None else mean_of([abs(part[name] - oracle[name]) for name in part])
        others = {
            other: average[method, protocol] - average[other, protocol]
            for other, same in parts
            if same == protocol is not None and other != method
        }
        found.append(
            {
                "method": method,
                "protocol": protocol,
                "split": split,
                "success": {name: asdict(value.interval()) for name, value in success.items()},
                "oracle_gap": None if gap is None else asdict(gap.interval()),
                "differences": {other: asdict(value.interval()) for other, value in others.items()},
            }
        )
    return found
