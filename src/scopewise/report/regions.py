"""A region as tables, layers down and modules across: as text, and as heat maps of the page. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scopewise.region import Entry, Region
from scopewise.terminal import escaped

MEASURES = {"cosine": "cosine of forget and retain gradient", "magnitude": "mean |forget gradient|", "score": "score"}
"""Field of an entry → its title; each one that the region has gives a table. Without any, `chosen` does."""
SHADES = 7
"""Number of colours of a heat map's scale."""


@dataclass(frozen=True)
class Cell:
    """A module of a layer.

    Attributes:
        chosen_fraction: Share (0-1) of its parameters that are in the region.
        values: Field → mean over its matrices, weighted by size; matrices without a value are left out.
    """

    chosen_fraction: float
    values: Mapping[str, float]

    def value(self, measure: str) -> float | None:
        """Return the value of a field, or for `chosen` the share in percent; None if it has none."""
        return 100 * self.chosen_fraction if measure == "chosen" else self.values.get(measure)


def grid(region: Region) -> dict[str, dict[str, Cell]]:
    """Return layer → module → cell, in the model's order; a module outside the layers has a row under its own name."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in region.entries:
        found = re.search(r"^(.*?)\.(\d+)\.(.+)$", entry.module)
        key = (found[2], found[3]) if found else (entry.module, "")
        groups.setdefault(key, []).append(entry)
    table: dict[str, dict[str, Cell]] = {}
    for (layer, module), entries in groups.items():
        table.setdefault(layer, {})[module] = _cell(entries)
    return table


def _cell(entries: list[Entry]) -> Cell:
    total = sum(e.parameters for e in entries)
    chosen = sum((e.parameters if e.selected is None else e.selected) if e.chosen else 0 for e in entries)
    values = {}
    for measure in MEASURES:
        known = [(getattr(e, measure), e.parameters) for e in entries if getattr(e, measure) is not None]
        if known:
            values[measure] = sum(v * n for v, n in known) / sum(n for _, n in known)
    return Cell(chosen / max(1, total), values)


@dataclass(frozen=True)
class HeatCell:
    """A module of a layer.

    Attributes:
        text: Its value.
        shade: Colour, 0 to SHADES - 1; None without a value.
        chosen: How much of it is in the region: `all`, `part` or empty.
    """

    text: str
    shade: int | None
    chosen: str


@dataclass(frozen=True)
class HeatMap:
    """One quantity of a region.

    Attributes:
        title: The quantity.
        low: Lowest value, as text.
        high: Highest.
        modules: Headings.
        layers: Layer → its cells, with None for modules it does not have.
    """

    title: str
    low: str
    high: str
    modules: Sequence[str]
    layers: Sequence[tuple[str, Sequence[HeatCell | None]]]


def _shown(table: Mapping[str, Mapping[str, Cell]]) -> tuple[list[str], list[str]]:
    """Return the modules and the measures of a table."""
    modules = list(dict.fromkeys(module for cells in table.values() for module in cells))
    has = {measure for row in table.values() for cell in row.values() for measure in cell.values}
    return modules, [measure for measure in MEASURES if measure in has] or ["chosen"]


def region_table(region: Region) -> str:
    """Return the tables as text: `*` marks modules in the region, `+` those partly in it."""
    table = grid(region)
    modules, measures = _shown(table)
    names = {module: escaped(module.rpartition(".")[2], keep="") or "-" for module in modules}
    lines = [
        f"{escaped(region.localizer, keep='')}: {region.parameters} of {sum(e.parameters for e in region.entries)} parameters "
        f"({100 * region.fraction:.1f} %) in {len(region.names)} of {len(region.entries)} matrices, {region.seconds:.1f} s"
    ]
    width = max(10, *(len(name) + 2 for name in names.values()))
    layers = {layer: escaped(layer, keep="") for layer in table}
    layer_width = max(5, *map(len, layers.values()))
    for measure in measures:
        lines += ["", f"{MEASURES.get(measure, 'share that may change')}  (* may change, + in part)"]
        lines.append(f"{'layer':<{layer_width}}" + "".join(f"{names[m]:>{width}}" for m in modules))
        for layer, row in table.items():
            texts = [_text(row[m], measure) if m in row else "" for m in modules]
            lines.append(f"{layers[layer]:<{layer_width}}" + "".join(f"{text:>{width}}" for text in texts))
    return "\n".join(lines)


def _text(cell: Cell, measure: str) -> str:
    mark = "*" if cell.chosen_fraction == 1 else "+" if cell.chosen_fraction else " "
    value = cell.value(measure)
    if value is None:
        return f"-{mark}"
    return {"chosen": f"{value:.0f} %", "cosine": f"{value:.3f}"}.get(measure, f"{value:.2e}") + mark


def heat_maps(region: Region) -> list[HeatMap]:
    """Return a heat map of each quantity that the region has; without any, one of the chosen share."""
    table = grid(region)
    modules, measures = _shown(table)
    return [_heat_map(table, modules, measure) for measure in measures]


def _heat_map(table: Mapping[str, Mapping[str, Cell]], modules: Sequence[str], measure: str) -> HeatMap:
    known = [v for row in table.values() for cell in row.values() if (v := cell.value(measure)) is not None]
    low, high = min(known), max(known)
    # Magnitudes and scores span decades; a linear scale would show one bright cell.
    logarithmic = measure in ("magnitude", "score") and low > 0
    scale = math.log if logarithmic else float
    span = scale(high) - scale(low)

    def text(value: float) -> str:
        return {"chosen": f"{value:.0f}", "cosine": f"{value:.3f}"}.get(measure, f"{value:.1e}")

    def heat_cell(cell: Cell) -> HeatCell:
        chosen = "all" if cell.chosen_fraction == 1 else "part" if cell.chosen_fraction else ""
        value = cell.value(measure)
        if value is None:
            return HeatCell("–", None, chosen)
        shade = round((scale(value) - scale(low)) / span * (SHADES - 1)) if span > 0 else SHADES // 2
        return HeatCell(text(value), shade, chosen)

    layers = [(layer, [heat_cell(row[m]) if m in row else None for m in modules]) for layer, row in table.items()]
    title = MEASURES.get(measure, "share that may change, %") + (", logarithmic scale" if logarithmic else "")
    names = [module.rpartition(".")[2] or "·" for module in modules]
    return HeatMap(title, text(low), text(high), names, layers)
