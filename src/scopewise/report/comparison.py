"""Compare methods with each other and with the oracle, with paired confidence intervals. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from scopewise.registry import EXACT
from scopewise.statistics import Estimate, Interval, distance, estimate, lead, mean_of

PARTS = ("unlearn_success", "retention_success")
PERCENT = (0.0, 100.0)

Group = tuple[str, str | None]
"""Method and protocol."""


class Comparisons:
    """Everything that can be said of the methods of a run from the values of its rows.

    The unit is a seed of unlearning. If there are several targets, each fine-tuned with a seed of its own, it is the target:
    its models are averaged over seeds of unlearning, and compared with the oracle of the same seed.

    Args:
        row_values: The content of `results.rows.json.gz`.
    """

    def __init__(self, row_values: Mapping[str, Any]) -> None:
        self.split: str = row_values["split"]
        self._keys = {part: f"{part}/{self.split}" for part in PARTS}
        models = [m for m in row_values["models"] if all(m["values"].get(key) for key in self._keys.values())]
        self._instance = {
            part: np.array(row_values["instances"].get(key, []), dtype=int) for part, key in self._keys.items()
        }
        self._count = 1 + max((int(found.max()) for found in self._instance.values() if found.size), default=0)
        several = len({model["target_seed"] for model in models}) > 1
        self._models: dict[Group, dict[int, list[Mapping[str, Any]]]] = {}
        for model in models:
            fixed = several or model["protocol"] is None
            unit = model["target_seed" if fixed else "seed"]
            self._models.setdefault((model["method"], model["protocol"]), {}).setdefault(unit, []).append(model)
        self._known: dict[tuple[Group, tuple[int, ...], str], Estimate] = {}
        self._oracle: Group | None = ("oracle", None) if ("oracle", None) in self._models else None
        self._paired = several

    def groups(self) -> list[Group]:
        """Return the compared methods, in the order of the results."""
        return list(self._models)

    def units(self, *groups: Group) -> tuple[int, ...]:
        """Return the seeds that all of some methods have."""
        common = set.intersection(*(set(self._models[group]) for group in groups))
        return tuple(unit for unit in self._models[groups[0]] if unit in common)

    def part(self, group: Group, units: tuple[int, ...], part: str) -> Estimate:
        """Return Unlearn or Retention Success over some seeds. Raises ValueError if no row has a value for each."""
        at = (group, units, part)
        if at not in self._known:
            key = self._keys[part]
            values = [
                np.mean([np.array(model["values"][key], dtype=float) for model in self._models[group][unit]], axis=0)
                for unit in units
            ]
            self._known[at] = estimate(np.array(values), self._instance[part], self._count)
        return self._known[at]

    def average(self, group: Group, units: tuple[int, ...]) -> Estimate:
        """Return Average Success over some seeds."""
        return mean_of([self.part(group, units, part) for part in PARTS])

    def gap(self, group: Group, units: tuple[int, ...]) -> Estimate:
        """Return the mean over seeds of each seed's distance to the oracle, in points."""
        assert self._oracle is not None
        own = units if self._paired else self.units(self._oracle)
        return distance([self.part(group, units, part) - self.part(self._oracle, own, part) for part in PARTS])

    def _gap_interval(self, group: Group, units: tuple[int, ...]) -> Interval:
        # The oracle's distance to itself is known: the interval for "no row differs" is for models that could differ.
        return Interval(0.0, 0.0, 0.0) if group == self._oracle else self.gap(group, units).interval(PERCENT)

    def with_oracle(self, *groups: Group) -> tuple[int, ...]:
        """Return the seeds for which the gap of all of some methods is known."""
        if self._oracle is None:
            return ()
        return self.units(*groups, self._oracle) if self._paired else self.units(*groups)

    def document(self) -> list[dict[str, Any]]:
        """Return the `comparisons` of `results.json`."""
        return [self._comparison(group) for group in self._models]

    def _comparison(self, group: Group) -> dict[str, Any]:
        method, protocol = group
        units, near = self.units(group), self.with_oracle(group)
        success = {part: self.part(group, units, part) for part in PARTS}
        success["average_success"] = self.average(group, units)
        others = [other for other in self._models if other[1] == protocol is not None and other != group]
        differences, gap_differences = {}, {}
        for other in others:
            if both := self.units(group, other):
                differences[other[0]] = asdict((self.average(group, both) - self.average(other, both)).interval())
            if both := self.with_oracle(group, other):
                gap_differences[other[0]] = asdict((self.gap(group, both) - self.gap(other, both)).interval())
        return {
            "method": method,
            "protocol": protocol,
            "split": self.split,
            "seeds": len(units),
            "instances": success["average_success"].instances,
            "success": {name: asdict(value.interval(PERCENT)) for name, value in success.items()},
            "oracle_gap": asdict(self._gap_interval(group, near)) if near else None,
            "differences": differences,
            "gap_differences": gap_differences,
        }

    def leads(self) -> list[dict[str, Any]]:
        """Return the `leads` of `results.json`: one object for each protocol."""
        found = []
        for protocol in dict.fromkeys(protocol for _, protocol in self._models if protocol is not None):
            members = [group for group in self._models if group[1] == protocol and group[0] not in EXACT]
            if self._oracle is not None:
                members = [group for group in members if self.with_oracle(group)]
            if members:
                found.append(self._lead(protocol, members))
        return found

    def _lead(self, protocol: str, members: Sequence[Group]) -> dict[str, Any]:
        near = self._oracle is not None
        pair = self.with_oracle if near else self.units
        size = self.gap if near else lambda group, units: self.average(group, units)
        best = (min if near else max)(members, key=lambda group: size(group, pair(group)).value)
        behind = {}
        for other in members:
            if other != best and (units := pair(best, other)):
                away = size(other, units) - size(best, units)
                behind[other[0]] = away if near else Estimate(-away.by_seed, away.errors, away.instances, -away.bias)
        found = lead(best[0], size(best, pair(best)), behind)
        return {
            "protocol": protocol,
            "by": "oracle_gap" if near else "average_success",
            "best": best[0],
            "leads": found.leads,
            "reason": found.reason,
            "seeds": found.seeds,
            "instances": found.instances,
            "rivals": {name: {**asdict(r.difference), "p_value": r.p_value} for name, r in found.rivals.items()},
        }


def compared(row_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `comparisons` and `leads` of `results.json` from the content of `results.rows.json.gz`."""
    found = Comparisons(row_values)
    return {"comparisons": found.document(), "leads": found.leads()}


def with_comparisons(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results that have comparisons: their own, or those of the models' values alone, without intervals.

    Results of earlier versions have none that count any more, and a results file does not have the values of rows.
    """
    if results.get("comparisons"):
        return dict(results)
    return {**results, **_of_metrics(results["rows"])}


def _of_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return comparisons without intervals, in which no method leads: a model's value stands for those of its rows."""
    split = "val" if any(key.endswith("/val") for row in rows for key in row["metrics"]) else "train"
    keys = [f"{part}/{split}" for part in PARTS]
    models = [
        {
            **{key: row[key] for key in ("method", "protocol", "seed")},
            "target_seed": 0,
            "values": {key: [row["metrics"][key]] for key in keys if row["metrics"].get(key) is not None},
        }
        for row in rows
    ]
    found = compared({"split": split, "instances": {key: [0] for key in keys}, "models": models})
    for comparison in found["comparisons"]:
        comparison["instances"] = None
        if comparison["oracle_gap"] is not None:
            comparison["oracle_gap"] |= {"low": None, "high": None}
    for lead_of_all in found["leads"]:
        lead_of_all |= {"leads": False, "reason": "no rows", "instances": None}
        lead_of_all["rivals"] = {name: {**rival, "p_value": None} for name, rival in lead_of_all["rivals"].items()}
    return found
