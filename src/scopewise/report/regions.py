"""A region as a text table: layers down, modules across. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scopewise.region import Entry, Region
from scopewise.terminal import escaped

MEASURES = {"cosine": "cosine of forget and retain gradient", "magnitude": "mean |forget gradient|", "score": "score"}
"""Field of an entry → its title; each one that the region has gives a table."""


@dataclass(frozen=True)
class Cell:
    """A module of a layer.

    Attributes:
        chosen_fraction: Share (0-1) of its parameters that are in the region.
        values: Field → mean over its matrices, weighted by size; matrices without a value are left out.
    """

    chosen_fraction: float
    values: Mapping[str, float]


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


def region_table(region: Region) -> str:
    """Return the tables as text: `*` marks modules in the region, `+` those partly in it."""
    table = grid(region)
    modules = list(dict.fromkeys(module for cells in table.values() for module in cells))
    names = {module: escaped(module.rpartition(".")[2], keep="") or "-" for module in modules}
    cells = [cell for row in table.values() for cell in row.values()]
    shown = [m for m in MEASURES if any(m in cell.values for cell in cells)]
    lines = [
        f"{escaped(region.localizer, keep='')}: {region.parameters} of {sum(e.parameters for e in region.entries)} parameters "
        f"({100 * region.fraction:.1f} %) in {len(region.names)} of {len(region.entries)} matrices, {region.seconds:.1f} s"
    ]
    width = max(10, *(len(name) + 2 for name in names.values()))
    layers = {layer: escaped(layer, keep="") for layer in table}
    layer_width = max(5, *map(len, layers.values()))
    for measure in shown or ["chosen"]:
        lines += ["", f"{MEASURES.get(measure, 'share that may change')}  (* may change, + in part)"]
        lines.append(f"{'layer':<{layer_width}}" + "".join(f"{names[m]:>{width}}" for m in modules))
        for layer, row in table.items():
            texts = [_text(row[m], measure) if m in row else "" for m in modules]
            lines.append(f"{layers[layer]:<{layer_width}}" + "".join(f"{text:>{width}}" for text in texts))
    return "\n".join(lines)


def _text(cell: Cell, measure: str) -> str:
    mark = "*" if cell.chosen_fraction == 1 else "+" if cell.chosen_fraction else " "
    if measure == "chosen":
        return f"{100 * cell.chosen_fraction:.0f} %{mark}"
    value = cell.values.get(measure)
    if value is None:
        return f"-{mark}"
    return (f"{value:.3f}" if measure == "cosine" else f"{value:.2e}") + mark
