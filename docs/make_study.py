"""Write the tables of docs/attack-study.md from the recorded attacks; `--check` compares."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from scopewise.report.attacks import attacks_table

PAGE = Path(__file__).parent / "attack-study.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
"""A table stands between marks that name its file."""


def main() -> None:
    """Write each table between its marks, or compare them."""
    old = PAGE.read_text(encoding="utf-8")
    text = TABLE.sub(
        lambda m: f"{m[1]}\n{attacks_table(json.loads((RESULTS / f'{m[2]}.json').read_text()))}\n\n{m[3]}", old
    )
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/attack-study.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
