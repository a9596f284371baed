"""Write docs/architectures.md from the recorded comparison of architectures; `--check` compares.

The record is made by `python tests/architectures/matrix.py --output benchmarks/results/architectures.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "architectures.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "architectures.json"

INTRODUCTION = """# Architectures

<!-- written by docs/make_architectures.py -->

Each type is built small from its configuration class. Its random weights are large enough that windows, caps, gates and
routers affect the output, and prompts are longer than any window. `tests/architectures/matrix.py` compares what scopewise
computes with the library's plain forward of one row at a time, with the default LoRA and with all parameters:

| check | what is compared |
|---|---|
| evaluate | perplexity to 1e-5, or to 3 times what rounding each weight changes; success; truth ratio with shared prompts |
| grown | the same for a model that was first evaluated with fresh weights, then changed in place |
| generate | greedy texts of prompts of several lengths in one batch, token for token |
| gradients | mean gradients and mean squared gradients of every matrix: cosine above 0.9999 with autograd's, and their size |
| localizers | every localizer gives a region and does not change the model |
| step | a step of gradient ascent and descent equals that of plain autograd |
| unlearn | MemFlex localizes and takes two steps; the result is evaluated correctly |
| attack | the probabilities of the attack `question` |

"""


def page(record: dict[str, Any]) -> str:
    """Return the page of a record."""
    types = record["types"]
    cells = [text for both in types.values() for row in both.values() for text in row.values()]
    right = sum(text.startswith("ok") for text in cells)
    refused = sum(text.startswith("refused") for text in cells)
    notes: dict[str, int] = {}
    lines = [
        INTRODUCTION,
        f"{len(types)} types, {len(cells)} comparisons: {right} agree, {refused} are refused with an error, "
        f"{len(cells) - right - refused} differ.\n\n",
        "| type | LoRA | all parameters |\n|---|---|---|\n",
    ]
    for kind, both in types.items():
        shown = " | ".join(_cell(both[parameters], notes) for parameters in ("lora", "all"))
        lines.append(f"| {kind} | {shown} |\n")
    if notes:
        lines.append("\n## Notes\n\n")
        lines += [f"{number}. {text}\n" for text, number in notes.items()]
    return "".join(lines)


def _cell(row: dict[str, str], notes: dict[str, int]) -> str:
    """Return how many checks agree, and what is said of the others."""
    right = sum(text.startswith("ok") for text in row.values())
    said = []
    for name, text in row.items():
        refusals = [text.removeprefix("refused: ")] if text.startswith("refused") else []
        if text.startswith("ok") and " refused: " in text:
            refusals = [part.split(" refused: ", 1)[1] for part in text[:-1].split("; ") if " refused: " in part]
        what = "" if text.startswith("ok") else f"{name} "
        if not text.startswith(("ok", "refused")):
            refusals = [text]
        said += [f"{what}[{notes.setdefault(_plain(part), len(notes) + 1)}]" for part in refusals]
    return " · ".join([f"{right} of {len(row)}", *dict.fromkeys(said)])


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or text != PAGE.read_text(encoding="utf-8"):
        sys.exit("docs/architectures.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
