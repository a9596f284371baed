"""Write the tables of docs/attack-study.md from the recorded attacks; `--check` compares."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from scopewise.report.attacks import attacks_table
from scopewise.report.comparison import compared
from scopewise.report.row_values import read_row_values

PAGE = Path(__file__).parent / "attack-study.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
"""A table stands between marks that name its file."""


def table(name: str) -> str:
    """Return the table of a file: attacks of a run, or models over seeds as `benchmarks/robust.py` prints them.

    `against` compares the recipes of one file with the methods of another.
    """
    if name == "against":
        ours, published = (read_row_values(RESULTS / f"{run}.rows.json.gz") for run in ("robust", "leaderboard"))
        return str(_robust()["against"](ours, published))
    document = json.loads((RESULTS / f"{name}.json").read_text())
    if "seeds" not in document:
        return attacks_table(document)
    made = document["manifest"]
    commits = ", ".join(commit[:12] for commit in made["runs_at"])
    origin = f"scopewise {made['scopewise']}, commit {commits}, {made['processor']}, {made['date'][:10]}"
    statistics = compared(read_row_values(RESULTS / f"{name}.rows.json.gz"))
    return f"{_robust()['table'](document['seeds'], statistics)} {origin}."


def _robust() -> dict[str, Any]:
    return runpy.run_path(str(RESULTS.parent / "robust.py"))


def main() -> None:
    """Write each table between its marks, or compare them."""
    old = PAGE.read_text(encoding="utf-8")
    text = TABLE.sub(lambda m: f"{m[1]}\n{table(m[2])}\n\n{m[3]}", old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/attack-study.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
