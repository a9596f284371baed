"""Write the sections of docs/metrics.md and docs/attacks.md from the docstrings; `--check` compares."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from scopewise.metrics.base import Aggregate, RowMetric
from scopewise.registry import lookup, table

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- begin: docstrings -->\n", "<!-- end: docstrings -->\n"
SCOPES = {
    "forget": "rows of the forget scope",
    "retain": "rows of the retain scope",
    "both": "rows of both scopes together",
    "each": "rows of each scope, a value for each",
    "membership": "forget rows against holdout rows",
}
DIRECTIONS = {True: "higher is better", False: "lower is better", None: "the direction depends on the scope"}
READ = {
    "best": "the leakage is that of the setting where each model gives most",
    "mean": "the leakage is that of the mean over settings",
    "last": "the leakage is that of the last setting under which target and oracle still differ",
}


def metric(cls: type) -> str:
    """Return what a metric is over, and its direction."""
    over = f"over {SCOPES[cls.scope]}" if issubclass(cls, RowMetric) else "of other measures' values"
    needs = f"; needs {', '.join(sorted(cls.needs))}" if cls.needs else ""
    kind = "Aggregate " if issubclass(cls, Aggregate) else ""
    line = f"{kind}{over}; {DIRECTIONS[cls.higher_is_better]}{needs}."
    return line[0].upper() + line[1:]


def attack(cls: type) -> str:
    """Return the suite of an attack, and how it is read."""
    return f"Suite {cls.suite}; {READ[cls.combine]}{'; needs the weights of the target' if cls.needs_target else ''}."


PAGES: dict[str, Callable[[type], str]] = {"metrics": metric, "attacks": attack}


def section(kind: str, name: str) -> str:
    """Return the section of a row of a table: a line on it, and its docstring."""
    cls = lookup(kind, name)
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
    text = "\n\n".join(textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False) for p in paragraphs)
    return f"## {name}\n\n*{PAGES[kind](cls)}*\n\n{text}\n"


def main() -> None:
    """Write the sections between the marks of each page, or compare them."""
    for kind in PAGES:
        path = FOLDER / f"{kind}.md"
        page = path.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        text = before + BEGIN + "\n" + "\n".join(section(kind, name) for name in table(kind)) + "\n" + END + after
        if sys.argv[1:] != ["--check"]:
            path.write_text(text, encoding="utf-8")
        elif text != page:
            sys.exit(f"docs/{kind}.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
