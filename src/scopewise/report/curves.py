"""Training curves as small charts: one chart per method and quantity, one line per seed. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scopewise.metrics.columns import label_of
from scopewise.report.figures import number
from scopewise.report.run_folder import Run
from scopewise.report.scatter import Axis

WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 30
LOGGED_KEY = "loss"
"""Key of the log that is drawn."""
PROBED = ("unlearn_success", "retention_success")
"""The metrics of early stopping."""
ATTACKED = ("unlearned", "oracle", "target")
"""The models of an attack's curve."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: The quantity.
        style: Index of its line style, the same for all lines of one name.
        points: The `points` of an SVG polyline.
        last: Its last value, as text.
    """

    name: str
    style: int
    points: str
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        method: The method that was trained.
        title: The title.
        curves: The lines.
        names: Style → quantity.
        x: Axis of steps.
        y: Axis of values.
        y_texts: Position and label of each tick.
    """

    method: str
    title: str
    curves: Sequence[Curve]
    names: Sequence[str]
    x: Axis
    y: Axis
    y_texts: Sequence[tuple[float, str]]


def charts(run: Run) -> list[Chart]:
    """Return the charts of a run: the logged loss of every model, and the probes of unlearned ones."""
    found = []
    for group, models in run.groups().items():
        label = run.label(group)
        logged = [model.row.get("curve") or [] for model in models]
        probes = [model.row.get("probes") or [] for model in models]
        found += _chart(label, "loss", logged, {LOGGED_KEY: "loss"})
        found += _chart(label, "success on a few train rows, %", probes, {name: label_of(name) for name in PROBED})
    return found


def series(documents: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return (step, value) of a logged key, without values that are not finite."""
    pairs = [(d["step"], d[key]) for d in documents if d.get(key) is not None]
    return [(float(step), float(value)) for step, value in pairs if math.isfinite(value)]


def _chart(
    method: str, title: str, seeds: Sequence[Sequence[Mapping[str, Any]]], keys: Mapping[str, str]
) -> list[Chart]:
    drawn = [
        (name, style, series(documents, key)) for style, (key, name) in enumerate(keys.items()) for documents in seeds
    ]
    drawn = [(name, style, pairs) for name, style, pairs in drawn if len(pairs) > 1]
    if not drawn:
        return []
    steps = [step for _, _, pairs in drawn for step, _ in pairs]
    values = [value for _, _, pairs in drawn for _, value in pairs]
    x = Axis(min(steps), max(steps), float(LEFT), float(WIDTH - RIGHT))
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(1e-9, abs(high) * 0.05) or 1.0
    y = Axis(low - room, high + room, float(HEIGHT - BOTTOM), float(TOP))
    curves = [
        Curve(name, style, " ".join(f"{x.at(step)},{y.at(value)}" for step, value in pairs), number(pairs[-1][1]))
        for name, style, pairs in drawn
    ]
    marks = [(y.at(v), f"{v:g}") for v in y.ticks]
    return [Chart(method, title, curves, list(keys.values()), x, y, marks)]


def attack_chart(model: str, attack: Mapping[str, Any]) -> list[Chart]:
    """Return a chart of the curve under which an attack that trains recovered most: unlearned model, oracle and target.

    Args:
        model: Method, protocol and seed.
        attack: A result of `attacks.json`.
    """
    curves = [curve for curve in attack.get("curves") or [] if any(v is not None for v in curve["unlearned"])]
    if not curves:
        return []
    best = max(curves, key=lambda curve: max(v for v in curve["unlearned"] if v is not None))
    points = [{"step": step, **{name: best[name][i] for name in ATTACKED}} for i, step in enumerate(best["steps"])]
    return _chart(
        model, f"{str(attack['attack']).replace('_', ' ')}: {best['name']}", [points], {name: name for name in ATTACKED}
    )
