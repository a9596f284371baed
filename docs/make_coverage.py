"""Write the tables of docs/statistics.md from the recorded simulation; `--check` compares."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "statistics.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SECTION = re.compile(r"(<!-- begin: coverage -->\n).*?(<!-- end: coverage -->)", re.DOTALL)


def tables(document: Mapping[str, Any], hard: Mapping[str, Any]) -> str:
    """Return the coverage by kind of value and by interval, the cases outside 93 to 97 %, and how often a leader is right."""
    cases, origin, config = [*document["coverage"], *hard["coverage"]], document["origin"], document["config"]
    names = list(dict.fromkeys(name for case in cases for name in case["coverage"]))
    rows = []
    for kind in dict.fromkeys(case["kind"] for case in cases):
        for seeds in sorted({case["seeds"] for case in cases}):
            members = [case["coverage"] for case in cases if (case["kind"], case["seeds"]) == (kind, seeds)]
            known = [[member[name] for member in members if name in member] for name in names]
            rows.append([kind, str(seeds), *(f"{min(k):.1f} to {max(k):.1f}" if k else "" for k in known)])
    own = [case["coverage"]["ours"] for case in cases]
    low, high = sum(c < 93 for c in own), sum(c > 97 for c in own)
    worst = min(cases, key=lambda case: case["coverage"]["ours"])
    about = ", ".join(
        f"{key.replace('_', ' ')} {value:g}" for key, value in worst.items() if isinstance(value, int | float)
    )
    leads = [
        [
            lead["case"],
            str(lead["seeds"]),
            f"{lead['seed_deviation']:g}",
            f"{lead['right']:.1f}",
            f"{lead['wrong']:.1f}",
        ]
        for lead in document["leads"]
    ]
    return "\n".join(
        [
            "How often a 95 % interval holds the true value, in percent: lowest to highest over the cases (20 and 55",
            "instances, 0 to 100 % of the variance between seeds, means of percentages from 80 to 99, gaps of 1 to 10 points).",
            "",
            _table(["", "seeds", *names], rows),
            "",
            f"Of {len(own)} cases {len(own) - low - high} lie between 93 and 97 %, {low} below and {high} above. The lowest is "
            f"{worst['coverage']['ours']:.1f} % ({worst['kind']}: {about}).",
            "",
            "How often a method is said to lead among ten, in percent (points of the gap; 55 instances):",
            "",
            _table(["", "seeds", "deviation between seeds", "rightly", "wrongly"], leads),
            "",
            f"`python benchmarks/coverage.py --repeats {config['repeats']} --compared {config['compared']} "
            f"--seed {config['seed']}`: {config['repeats']} draws of each case ({config['compared']} for the bootstraps); "
            f"commit {(origin['commit'] or 'unknown')[:12]}, {origin['processor']} ({origin['cores']} cores), "
            f"{document['seconds']:.0f} s, {origin['date']}; the last kind with `--hard`. All cases are in "
            "`benchmarks/results/coverage.json` and `coverage_hard.json`.",
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def main() -> None:
    """Write the tables, or compare them."""
    old = PAGE.read_text(encoding="utf-8")
    found = [
        json.loads((RESULTS / name).read_text(encoding="utf-8")) for name in ("coverage.json", "coverage_hard.json")
    ]
    text = SECTION.sub(lambda m: f"{m[1]}\n{tables(*found)}\n\n{m[2]}", old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/statistics.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
