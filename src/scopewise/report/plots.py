"""Plots as files for papers, with matplotlib (extra `report`). Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from scopewise.errors import ConfigError, ResultError
from scopewise.report.curves import LOGGED_KEY, series
from scopewise.report.regions import heat_maps
from scopewise.report.run_folder import Run
from scopewise.report.scatter import points_of

PLOTS = ("scatter", "regions", "curves")
_COLOURS = ("#0b57a8", "#b04a00", "#1a6b35", "#86198f", "#7a5c00", "#a3190f")


def plot(runs: Sequence[Run], what: str, file_format: str) -> bytes:
    """Return a plot as the content of a png, svg or pdf file.

    Args:
        runs: The runs; regions and curves are those of the first.
        what: `scatter` (Unlearn against Retention Success), `regions` (heat maps) or `curves` (training losses).
        file_format: `png` (200 dots per inch), `svg` or `pdf`.

    Raises:
        ConfigError: matplotlib is not installed.
        ResultError: the run folder has nothing to draw.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            f"--format: {file_format} needs matplotlib, which is not installed; html, md, csv and tex do not need "
            "it; pip install 'scopewise[report]'"
        ) from None
    draw = {"scatter": _scatter, "regions": _regions, "curves": _curves}[what]
    out = io.BytesIO()
    # Keep text as text in SVG and PDF, and write no date, so that the same results give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scopewise", "pdf.fonttype": 42, "font.size": 8}):
        figure = Figure(layout="constrained")
        draw(figure, runs)
        dated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
        figure.savefig(out, format=file_format, dpi=200, metadata=dated)
    return out.getvalue()


def _scatter(figure: Any, runs: Sequence[Run]) -> None:
    points = points_of(runs)
    if not points:
        raise ResultError(f"{runs[0].path}: no model was measured on both scopes; nothing to draw")
    figure.set_size_inches(5.5, 3.8)
    axes = figure.add_subplot()
    for p in points:
        (x, left, right), (y, low, high) = p.retention, p.unlearn
        colour = _COLOURS[p.series % len(_COLOURS)] if p.role == "unlearned" else "black"
        marker = {"target": "s", "oracle": "*"}.get(p.role, "^" if p.protocol == "tuned" else "o")
        if p.role == "oracle":
            axes.axhline(y, color="0.6", linestyle=":", linewidth=0.8)
            axes.axvline(x, color="0.6", linestyle=":", linewidth=0.8)
        filled = p.on_front or p.role != "unlearned"
        axes.errorbar(
            x,
            y,
            xerr=[[max(0.0, x - left)], [max(0.0, right - x)]],
            yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
            marker=marker,
            markersize=9 if p.role == "oracle" else 6,
            color=colour,
            markerfacecolor=colour if filled else "white",
            linewidth=0.7,
        )
        axes.annotate(_plain(p.label), (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
    for i in range(len(runs)):
        corners = sorted((p.retention[0], p.unlearn[0]) for p in points if p.series == i and p.on_front)
        axes.plot([c[0] for c in corners], [c[1] for c in corners], color=_COLOURS[i % len(_COLOURS)], linewidth=1)
    axes.set_xlabel("Retention Success, %")
    axes.set_ylabel("Unlearn Success, %")
    axes.spines[["top", "right"]].set_visible(False)


def _regions(figure: Any, runs: Sequence[Run]) -> None:
    found = [(label, m) for label, region in runs[0].regions.items() for m in heat_maps(region)]
    if not found:
        raise ResultError(f"{runs[0].path}: no region in it; nothing to draw")
    from matplotlib.patches import Rectangle

    figure.set_size_inches(7, sum(1.2 + 0.16 * len(m.layers) for _, m in found))
    every = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (label, m) in zip(every, found, strict=True):
        shades = [[float("nan") if c is None or c.shade is None else c.shade for c in cells] for _, cells in m.layers]
        axes.imshow(shades, cmap="Blues", aspect="auto", vmin=0, vmax=8)
        for row, (_, cells) in enumerate(m.layers):
            for column, cell in enumerate(cells):
                if cell is not None:
                    axes.text(column, row, cell.text, ha="center", va="center", fontsize=5)
                    if cell.chosen:
                        style = "-" if cell.chosen == "all" else "--"
                        box = (column - 0.47, row - 0.46)
                        axes.add_patch(Rectangle(box, 0.94, 0.92, fill=False, edgecolor="#b04a00", linestyle=style))
        axes.set_xticks(range(len(m.modules)), [_plain(name) for name in m.modules], fontsize=6)
        axes.set_yticks(range(len(m.layers)), [_plain(layer) for layer, _ in m.layers], fontsize=6)
        axes.set_title(_plain(f"{label}: {m.title}, {m.low} to {m.high}"), fontsize=7)


def _curves(figure: Any, runs: Sequence[Run]) -> None:
    groups = [
        (runs[0].label(group), [series(m.row["curve"], LOGGED_KEY) for m in models])
        for group, models in runs[0].groups().items()
    ]
    groups = [(label, [s for s in drawn if len(s) > 1]) for label, drawn in groups]
    groups = [(label, drawn) for label, drawn in groups if drawn]
    if not groups:
        raise ResultError(f"{runs[0].path}: no training curve in it; nothing to draw")
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    figure.set_size_inches(7, 1.7 * down)
    every = figure.subplots(down, across, squeeze=False).flat
    for axes, (label, drawn) in zip(every, groups, strict=False):
        for pairs in drawn:
            axes.plot([step for step, _ in pairs], [value for _, value in pairs], color=_COLOURS[0], linewidth=1)
        axes.set_title(_plain(label), fontsize=7)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
    for axes in list(every):
        axes.set_axis_off()


def _plain(text: str) -> str:
    """Escape a text so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")
