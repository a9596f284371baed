"""Who leads, in a sentence. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scopewise.statistics import CONFIDENCE, LEAST_INSTANCES, LEAST_SEEDS
from scopewise.terminal import counted

_NAMED = 3
"""Rivals that a sentence names."""


def leaders(results: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each protocol: which method leads, or why none is said to."""
    found = results.get("leads", [])
    several = len({lead["protocol"] for lead in found}) > 1
    return [leader(lead, f"{lead['protocol']} protocol: " if several else "") for lead in found]


def leader(lead: Mapping[str, Any], start: str = "") -> str:
    """Return the sentence for an entry of `leads`; it begins with `start`."""
    best, near = lead["best"], lead["by"] == "oracle_gap"
    place = "is closest to the oracle" if near else "has the highest Average Success"
    if lead["leads"]:
        rivals: Mapping[str, Any] = lead["rivals"]
        name = min(rivals, key=lambda rival: rivals[rival]["value"])
        nearest = rivals[name]
        count = f"each of the {len(rivals)} other methods" if len(rivals) > 1 else "the other method"
        what = f"closer to the oracle than {count}" if near else f"higher in Average Success than {count}"
        return (
            f"{start}{best} leads: it is {what}; next is {name}, {nearest['value']:.2f} points behind "
            f"(Holm-corrected p = {nearest['p_value']:.2g})."
        )
    if lead["reason"] == "one method":
        return f"{start}There is only one method, {best}: nothing to compare."
    why = {
        "few seeds": f"with {counted(lead['seeds'], 'seed')}; at least {LEAST_SEEDS} are needed",
        "few instances": f"the rows are about {counted(lead['instances'], 'instance')}; at least {LEAST_INSTANCES} are needed",
        "no rows": "there are no intervals, because the results lack the values of single rows",
    }.get(lead["reason"]) or f"{_names(_not_behind(lead['rivals']))} cannot be distinguished from it"
    return f"{start}No method leads: {best} {place}, but {why}."


def _not_behind(rivals: Mapping[str, Mapping[str, Any]]) -> list[str]:
    close = [name for name, rival in rivals.items() if rival["p_value"] is None or rival["p_value"] >= 1 - CONFIDENCE]
    return sorted(close, key=lambda name: rivals[name]["value"])


def _names(names: Sequence[str]) -> str:
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    return " and ".join([*([", ".join(shown[:-1])] if shown[:-1] else []), *shown[-1:]])
