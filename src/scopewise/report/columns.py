"""The columns of a run's table: headline metrics as they declare themselves, gap to the oracle, costs. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.metrics.columns import columns_of, split_of


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: The metric's key in the results; `oracle_gap`; or the key of a cost.
        heading: Its heading.
        better: `higher`, `lower` or `to the oracle`; empty if it is not known.
        unit: Its unit; empty if the heading has it, or there is none.
        scale: Factor from the results to the table.
        number: Format of a cost in the Markdown table.
    """

    key: str
    heading: str
    better: str
    unit: str = ""
    scale: float = 1.0
    number: str = ".3g"

    @property
    def note(self) -> str:
        """Unit and direction."""
        return ", ".join(filter(None, (self.unit, self.better)))


GAP = Column("oracle_gap", "Gap to oracle", "lower")
"""Mean absolute distance of Unlearn and Retention Success to the oracle's, in points."""

COSTS: Mapping[str, Column] = {
    cost.key: cost
    for cost in (
        Column("seconds_per_step", "s/step", "lower"),
        Column("peak_memory_bytes", "Peak MB", "lower", scale=1e-6, number=".0f"),
        Column("localization_seconds", "Localize s", "lower"),
    )
}


def columns(results: Mapping[str, Any]) -> list[Column]:
    """Return the columns that some row of the results has a value for."""
    split = split_shown(results)
    shown = [column for key, column in metric_columns(results).items() if split_of(key) in (split, None)]
    if any(comparison["oracle_gap"] for comparison in results.get("comparisons", [])):
        shown.append(GAP)
    return [
        *shown,
        *(cost for key, cost in COSTS.items() if any(row["cost"].get(key) is not None for row in results["rows"])),
    ]


def metric_columns(results: Mapping[str, Any], *, all_keys: bool = False) -> dict[str, Column]:
    """Return a column for each metric key in the results that is a headline, or for all of them."""
    keys = dict.fromkeys(key for row in results["rows"] for key in row["metrics"])
    return {
        key: Column(key, about.label, about.better or "", about.unit)
        for key, about in columns_of(keys, results.get("columns", {})).items()
        if about.headline or all_keys
    }


def recorded(values: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the `columns` of `results.json`: key → label, unit, direction, and whether it is a headline.

    Args:
        values: The `values` of the evaluation documents.
    """
    names = ("label", "unit", "better", "headline")
    return {key: {n: value[n] for n in names} for one in values for key, value in one.items() if value.get("label")}


def split_shown(results: Mapping[str, Any]) -> str:
    """Return the split that the table shows."""
    keys = {re.split(r"[.+]", key)[0] for row in results["rows"] for key in row["metrics"]}
    return "val" if any(key.endswith("val") for key in keys) or not keys else "train"
