"""Write table and plot of requests in sequence, in docs/howto/forget.md, from the recorded benchmark; `--check` compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "howto" / "forget.md"
PLOT = Path(__file__).parent / "images" / "sequence.svg"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "sequence.json"
SECTION = re.compile(r"(<!-- begin: sequence -->\n).*?(<!-- end: sequence -->)", re.DOTALL)
SHOWN = (1, 10, 30)
"""Numbers of requests in the table."""


def table(document: dict[str, Any]) -> str:
    """Return Markdown: the figures after some numbers of requests."""
    lines = [
        "| kind | requests | forgotten: exposure | answers that rank high | earlier ones red | kept: tokens lost, % | drift |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, found in document["sequences"].items():
        for one in found:
            if one["requests"] in SHOWN:
                lines.append(
                    f"| {kind} | {one['requests']} | {_text(one['forgotten'])} | {one['known_facts']} of {one['facts']} "
                    f"| {one['earlier_red']} | {_text(one['kept'], 100)} | {one['drift']:.2f} |"
                )
    return "\n".join(lines)


def _text(found: dict[str, Any], scale: float = 1.0) -> str:
    value = f"{scale * found['value']:.2f}"
    return value if found["low"] is None else f"{value} ({scale * found['low']:.2f} to {scale * found['high']:.2f})"


PANELS = (
    ("forgotten", "exposure of what was removed so far, 0 = chance", -0.25, 1.0),
    ("kept", "share of retained tokens lost", -0.15, 0.15),
    ("drift", "KL from the first model, nats per token", 0.0, None),
)
COLOURS = {"exact": "#1b6ca8", "approximate": "#c4532b"}


def plot(sequences: dict[str, list[dict[str, Any]]]) -> str:
    """Return an SVG of three panels over the number of requests; a band is a 95 % interval."""
    width, height, gap, left = 460, 150, 62, 60
    last = max(one["requests"] for found in sequences.values() for one in found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 110} {3 * (height + gap) + 30}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, (key, title, low, high) in enumerate(PANELS):
        values = [_points(one[key]) for found in sequences.values() for one in found]
        top = high if high is not None else 1.1 * max(v[0] for v in values)
        foot = 30 + number * (height + gap) + height

        def at(x: float, y: float, low: float = low, top: float = top, foot: int = foot) -> str:
            y = min(max(y, low), top)
            return f"{left + width * x / last:.1f} {foot - height * (y - low) / (top - low):.1f}"

        parts.append(f'<text x="{left}" y="{foot - height - 8}" font-size="14">{key}: {title}</text>')
        parts.append(f'<path d="M{left} {foot - height}V{foot}M{at(0, 0)}L{at(last, 0)}" stroke="#777" fill="none"/>')
        for tick in dict.fromkeys((0.0, low, top)):
            place = at(0, tick).split()[1]
            parts.append(f'<text x="{left - 6}" y="{place}" text-anchor="end" dy="4">{tick:.2g}</text>')
        for x in sorted({1, *range(5, last + 1, 5), last}):
            place = at(x, low).split()[0]
            parts.append(f'<text x="{place}" y="{foot + 18}" text-anchor="middle">{x}</text>')
        for line, (kind, found) in enumerate(sequences.items()):
            colour = COLOURS[kind]
            points = [(one["requests"], *_points(one[key])) for one in found]
            banded = [(x, lo, hi) for x, _, lo, hi in points if lo is not None and hi is not None]
            if banded:
                band = [at(x, hi) for x, _, hi in banded] + [at(x, lo) for x, lo, _ in reversed(banded)]
                parts.append(f'<path d="M{"L".join(band)}Z" fill="{colour}" opacity="0.15"/>')
            path = "L".join(at(x, y) for x, y, _, _ in points)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            place = foot - height + 14 + 18 * line
            parts.append(f'<text x="{left + width + 10}" y="{place}" fill="{colour}">{kind}</text>')
    place = 30 + 2 * (height + gap) + height + 38
    parts.append(f'<text x="{left + width / 2}" y="{place}" text-anchor="middle">requests in sequence</text></svg>')
    return "\n".join(parts) + "\n"


def _points(found: Any) -> tuple[float, float | None, float | None]:
    return (found["value"], found["low"], found["high"]) if isinstance(found, dict) else (found, None, None)


def origin(document: dict[str, Any]) -> str:
    """Return where the figures are from."""
    made = document["manifest"]
    seconds = sum(one["cpu_seconds"] for found in document["sequences"].values() for one in found)
    return (
        f"`python benchmarks/sequence.py`; scopewise {made['scopewise']}, commit {made['commit'][:12]}, {made['processor']}, "
        f"{made['date'][:10]}, {seconds / 60:.0f} minutes of processor time. 95 % intervals are over persons."
    )


def main() -> None:
    """Write both, or compare them."""
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    old, drawn = PAGE.read_text(encoding="utf-8"), plot(document["sequences"])
    text = SECTION.sub(lambda m: f"{m[1]}\n{table(document)}\n\n{origin(document)}\n\n{m[2]}", old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
        PLOT.write_text(drawn, encoding="utf-8")
    elif text != old or not PLOT.exists() or PLOT.read_text(encoding="utf-8") != drawn:
        sys.exit("docs/howto/forget.md or docs/images/sequence.svg is out of date; run `make docs`")


if __name__ == "__main__":
    main()
