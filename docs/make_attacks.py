"""Write the sections of docs/attacks.md from the docstrings: `python docs/make_attacks.py`; `--check` compares."""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path

from scopewise.attacks import ATTACKS
from scopewise.registry import lookup

TARGET = Path(__file__).parent / "attacks.md"
BEGIN, END = "<!-- begin: docstrings -->\n", "<!-- end: docstrings -->\n"
READ = {
    "best": "the leakage is that of the setting where each model gives most",
    "mean": "the leakage is that of the mean over settings",
    "last": "the leakage is that of the last setting under which target and oracle still differ",
}


def section(name: str) -> str:
    """Return the section of an attack: its suite, how it is read, and its docstring."""
    cls = lookup("attacks", name)
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n")]
    text = "\n\n".join(textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False) for p in paragraphs)
    needs = "; needs the target's weights" if cls.needs_target else ""
    return f"## {name}\n\n*Suite {cls.suite}; {READ[cls.combine]}{needs}.*\n\n{text}\n"


def main() -> None:
    """Write the sections between the marks, or compare them."""
    page = TARGET.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    text = before + BEGIN + "\n" + "\n".join(section(name) for name in ATTACKS) + "\n" + END + after
    if sys.argv[1:] == ["--check"]:
        if text != page:
            sys.exit("docs/attacks.md is out of date; run `make docs`")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
