"""Compare several runs with the first: differences in figures and in settings. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.report.columns import COSTS, Column, columns
from scopewise.report.figures import Figure, lines, number
from scopewise.report.run_folder import Run


@dataclass(frozen=True)
class Difference:
    """A figure of a run, compared with that of the first run.

    Attributes:
        text: The figure; empty if the run has none.
        interval: Its interval.
        change: Signed difference to the first run; empty for the first run, or if one of the two figures is missing.
        apart: Whether both figures have intervals and these do not overlap.
    """

    text: str
    interval: str
    change: str = ""
    apart: bool = False


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        columns: Metrics, each with one column per run.
        lines: Method → for each metric, the figure of each run.
        settings: Setting → its value in each run; only settings that differ.
    """

    columns: Sequence[Column]
    lines: Sequence[tuple[str, Sequence[Sequence[Difference]]]]
    settings: Sequence[tuple[str, Sequence[str]]]


def comparison(runs: Sequence[Run]) -> Comparison:
    """Return the runs side by side."""
    wanted = {c.key: c for run in runs for c in columns(run.results) if c.key not in COSTS and "+" not in c.key}
    known = [lines(run) for run in runs]
    several = len({line.group[1] for table in known for line in table if line.group[1]}) > 1
    tables = [{_name(line.group, several): line.figures for line in table} for table in known]
    names = list(dict.fromkeys(name for table in tables for name in table))
    found = [(name, [_beside([table.get(name, {}).get(key) for table in tables]) for key in wanted]) for name in names]
    flat = [_flat(run.results.get("config", {})) for run in runs]
    origin = [
        {key: _origin(run, key) for key in ("scopewise", "commit", "data_hash", "processor", "device")} for run in runs
    ]
    flat = [
        {**settings, **{f"origin.{k}": v for k, v in made.items()}} for settings, made in zip(flat, origin, strict=True)
    ]
    keys = sorted({key for settings in flat for key in settings} - {"run.dir"})
    differing = [(key, [settings.get(key, "–") for settings in flat]) for key in keys]
    return Comparison(
        list(wanted.values()), found, [(key, values) for key, values in differing if len(set(values)) > 1]
    )


def _name(group: tuple[str, str], with_protocol: bool) -> str:
    return f"{group[0]} ({group[1]})" if group[1] and with_protocol else group[0]


def _beside(figures: Sequence[Figure | None]) -> list[Difference]:
    return [_difference(figure, figures[0] if i else None) for i, figure in enumerate(figures)]


def _difference(figure: Figure | None, first: Figure | None) -> Difference:
    if figure is None:
        return Difference("", "")
    if first is None:
        return Difference(figure.text, figure.interval)
    change = figure.value - first.value
    sign = "+" if change >= 0 else "−"
    return Difference(figure.text, figure.interval, f"{sign}{number(abs(change))}", _apart(figure, first))


def _apart(a: Figure, b: Figure) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low > b.high or b.low > a.high


def _origin(run: Run, key: str) -> str:
    return str(run.results["manifest"].get(key))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + str(key)] = str(value)
    return found
