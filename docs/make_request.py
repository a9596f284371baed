"""Write what came of a request on a pre-trained model, in docs/howto/pre-trained.md, from its record; `--check` compares."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.erasure.evidence import read_record
from scopewise.erasure.record_schema import predicate_of

PAGE = Path(__file__).parent / "howto" / "pre-trained.md"
RECORD = Path(__file__).parents[1] / "benchmarks" / "results" / "forget_world_facts_all.intoto.json"
SECTION = re.compile(r"(<!-- begin: request -->\n).*?(<!-- end: request -->)", re.DOTALL)


def lights(verdict: Mapping[str, Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: the three lights with value, interval and bound, and what else was measured."""
    lines = ["| light | | value | bound |", "|---|---|---:|---:|"]
    lines += [
        f"| *{name.capitalize()}* | {one['light']} | {_interval(one)} | {one['bound']:g} |"
        for name, one in verdict.items()
    ]
    lines += [f"| {one['name']} | | {_interval(one)} | |" for one in metrics]
    return "\n".join(lines)


def attacks(found: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: for each attack (each rate of relearning) its number of settings, and the largest share brought back."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        attack, _, setting = one["name"].partition(": ")
        groups.setdefault(f"{attack}: {setting}" if attack == "relearning" else attack, []).append(one)
    lines = ["| attack | settings | brought back, at most |", "|---|---:|---:|"]
    for name, several in groups.items():
        lines.append(f"| {name} | {len(several)} | {_interval(max(several, key=lambda one: float(one['value'])))} |")
    return "\n".join(lines)


def _interval(one: Mapping[str, Any]) -> str:
    value = f"{one['value']:.2f}"
    return value if one["low"] is None else f"{value} [{one['low']:.2f}, {one['high']:.2f}]"


def origin(found: Mapping[str, Any]) -> str:
    """Return where the figures are from."""
    tool, known, action = found["tool"], found["evidence"]["known"], found["action"]
    return (
        f"Before: {known['known']} of {known['facts']} facts known. {action['method']}, learning rate "
        f"{action['settings']['learning_rate']:g}; scopewise {tool['scopewise']}, commit {tool['commit'][:12]}, "
        f"{tool['processor']}, {found['made'][:10]}."
    )


def main() -> None:
    """Write the section, or compare it."""
    found = predicate_of(read_record(RECORD.read_bytes(), RECORD.name))
    parts = [
        lights(found["evidence"]["verdict"], found["evidence"]["metrics"]),
        attacks(found["evidence"]["attacks"]),
        origin(found),
    ]
    old = PAGE.read_text(encoding="utf-8")
    text = SECTION.sub(lambda m: "\n\n".join([m[1], *parts, m[2]]).replace("\n\n\n", "\n\n"), old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/howto/pre-trained.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
