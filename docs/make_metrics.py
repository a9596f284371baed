"""Write the sections of docs/metrics.md from the docstrings: `python docs/make_metrics.py`; `--check` compares."""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path

from scopewise.metrics import METRICS
from scopewise.metrics.base import Aggregate, RowMetric
from scopewise.registry import lookup

TARGET = Path(__file__).parent / "metrics.md"
BEGIN, END = "<!-- begin: docstrings -->\n", "<!-- end: docstrings -->\n"
SCOPES = {
    "forget": "rows of the forget scope",
    "retain": "rows of the retain scope",
    "both": "rows of both scopes together",
    "each": "rows of each scope, a value for each",
    "membership": "forget rows against holdout rows",
}
DIRECTIONS = {True: "higher is better", False: "lower is better", None: "the direction depends on the scope"}


def section(name: str) -> str:
    """Return the section of a metric: what it is over, and its docstring."""
    cls = lookup("metrics", name)
    over = SCOPES[cls.scope] if issubclass(cls, RowMetric) else "other measures' values"
    needs = f"; needs {', '.join(sorted(cls.needs))}" if cls.needs else ""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
    text = "\n\n".join(textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False) for p in paragraphs)
    kind = "aggregate of" if issubclass(cls, Aggregate) else "over"
    return f"## {name}\n\n*{kind[0].upper()}{kind[1:]} {over}; {DIRECTIONS[cls.higher_is_better]}{needs}.*\n\n{text}\n"


def main() -> None:
    """Write the sections between the marks, or compare them."""
    page = TARGET.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    text = before + BEGIN + "\n" + "\n".join(section(name) for name in METRICS) + "\n" + END + after
    if sys.argv[1:] == ["--check"]:
        if text != page:
            sys.exit("docs/metrics.md is out of date; run `make docs`")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
