"""Write what came of a request on a pre-trained model, in docs/howto/pre-trained.md, from its records; `--check` compares."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scopewise.erasure.evidence import read_record
from scopewise.erasure.record_schema import predicate_of

PAGE = Path(__file__).parent / "howto" / "pre-trained.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RECORDS = {"today's plan": "forget_world_facts", "earlier plan": "forget_world_facts_all"}
"""Heading → record."""
SECTION = re.compile(r"(<!-- begin: request -->\n).*?(<!-- end: request -->)", re.DOTALL)


def lights(records: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: the lights of each record with value and interval, and what else was measured."""
    found = [one["evidence"] for one in records]
    lines = [_row(["", "bound", *RECORDS]), _row(["---", *["---:"] * (1 + len(found))])]
    for name, one in found[0]["verdict"].items():
        values = [f"{e['verdict'][name]['light']} {_interval(e['verdict'][name])}" for e in found]
        lines.append(_row([f"*{name.capitalize()}*", f"{one['bound']:g}", *values]))
    for i, one in enumerate(found[0]["metrics"]):
        lines.append(_row([one["name"], "", *(_interval(e["metrics"][i]) for e in found)]))
    return "\n".join(lines)


def attacks(records: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: for each attack (each rate of relearning) its number of settings, and the largest share brought back."""
    groups: dict[str, list[list[Mapping[str, Any]]]] = {}
    for number, record in enumerate(records):
        for one in record["evidence"]["attacks"]:
            attack, _, setting = one["name"].partition(": ")
            name = f"{attack}: {setting}" if attack == "relearning" else attack
            groups.setdefault(name, [[] for _ in records])[number].append(one)
    lines = [
        _row(["attack: brought back, at most", "settings", *RECORDS]),
        _row(["---", *["---:"] * (1 + len(records))]),
    ]
    for name, several in groups.items():
        most = [_interval(max(own, key=lambda one: float(one["value"]))) if own else "" for own in several]
        lines.append(_row([name, str(max(map(len, several))), *most]))
    return "\n".join(lines)


def origin(heading: str, found: Mapping[str, Any]) -> str:
    """Return where the figures are from."""
    tool, known, action = found["tool"], found["evidence"]["known"], found["action"]
    trained = "LoRA" if action["settings"]["parameters"] == "lora" else "all parameters"
    return (
        f"- {heading}: {action['method']}, {trained}, learning rate {action['settings']['learning_rate']:g}; before, "
        f"{known['known']} of {known['facts']} facts known; commit {tool['commit'][:12]}, {tool['processor']}, "
        f"{found['made'][:10]}."
    )


def _interval(one: Mapping[str, Any]) -> str:
    value = f"{one['value']:.2f}"
    return value if one["low"] is None else f"{value} [{one['low']:.2f}, {one['high']:.2f}]"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the section, or compare it."""
    files = [RESULTS / f"{name}.intoto.json" for name in RECORDS.values()]
    records = [predicate_of(read_record(file.read_bytes(), file.name)) for file in files]
    origins = "\n".join(map(origin, RECORDS, records))
    old = PAGE.read_text(encoding="utf-8")
    text = SECTION.sub(lambda m: "\n\n".join([m[1].rstrip(), lights(records), attacks(records), origins, m[2]]), old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/howto/pre-trained.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
