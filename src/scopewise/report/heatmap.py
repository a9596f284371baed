"""A region as heat maps: layers down, modules across, the chosen part outlined. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scopewise.region import Region
from scopewise.report.regions import MEASURES, grid

SHADES = 7
"""Number of colours of the scale."""


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


def heat_maps(region: Region) -> list[HeatMap]:
    """Return a heat map of each quantity that the region has; without any, one of the chosen share."""
    table = grid(region)
    modules = list(dict.fromkeys(module for cells in table.values() for module in cells))
    names = [module.rpartition(".")[2] or "·" for module in modules]
    maps = []
    shown = [m for m in MEASURES if any(m in cell.values for row in table.values() for cell in row.values())]
    for measure in shown or ["chosen"]:
        values = {
            (layer, module): 100 * cell.chosen_fraction if measure == "chosen" else cell.values[measure]
            for layer, row in table.items()
            for module, cell in row.items()
            if measure == "chosen" or measure in cell.values
        }
        # Magnitudes and scores span decades; a linear scale would show one bright cell.
        logarithmic = measure in ("magnitude", "score") and min(values.values()) > 0
        scale = [math.log(v) if logarithmic else v for v in values.values()]
        low, high = min(scale), max(scale)

        def shade(value: float, low: float = low, high: float = high, logarithmic: bool = logarithmic) -> int:
            at = math.log(value) if logarithmic else value
            return round((at - low) / (high - low) * (SHADES - 1)) if high > low else SHADES // 2

        layers = []
        for layer, row in table.items():
            cells: list[HeatCell | None] = []
            for module in modules:
                if module not in row:
                    cells.append(None)
                    continue
                fraction = row[module].chosen_fraction
                chosen = "all" if fraction == 1 else "part" if fraction else ""
                value = values.get((layer, module))
                cells.append(
                    HeatCell(
                        "–" if value is None else _text(value, measure), None if value is None else shade(value), chosen
                    )
                )
            layers.append((layer, cells))
        title = MEASURES.get(measure, "share that may change, %") + (", logarithmic scale" if logarithmic else "")
        ends = sorted(values.values())
        maps.append(HeatMap(title, _text(ends[0], measure), _text(ends[-1], measure), names, layers))
    return maps


def _text(value: float, measure: str) -> str:
    if measure == "cosine":
        return f"{value:.3f}"
    return f"{value:.0f}" if measure == "chosen" else f"{value:.1e}"
