"""Write the calibration tables of docs/verdict.md from the recorded cases; `--check` compares."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "verdict.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "calibration.json"
SECTION = re.compile(r"(<!-- begin: calibration -->\n).*?(<!-- end: calibration -->)", re.DOTALL)
LIGHTS = ("forgotten", "kept", "resists")


def tables(document: Mapping[str, Any]) -> str:
    """Return false greens by number of instances, all lights by model, and the p-values of facts that were never taught."""
    runs, origin = document["cases"], document["manifest"]
    sizes = [*dict.fromkeys(run["instances"] for run in runs), "all"]
    errors = []
    for light in LIGHTS:
        for size in sizes:
            cells = []
            for exact in (False, True):
                some = [run[light] for run in runs if size in (run["instances"], "all") and run["exact"] is exact]
                no, yes = ([run["light"] for run in some if run["truth"] is truth] for truth in (False, True))
                cells += [_share("green", no), _share("green", yes), _share("red", yes)]
            errors.append([light.capitalize(), str(size), *cells])
    models = []
    for model in dict.fromkeys(run["model"] for run in runs):
        some = [run for run in runs if run["model"] == model and not run["exact"]]
        counts = [[run[light]["light"] for run in some] for light in LIGHTS]
        models.append(
            [model, *(" / ".join(str(c.count(color)) for color in ("green", "amber", "red")) for c in counts)]
        )
    untaught = [
        [
            name,
            str(found["facts"]["n"]),
            f"{found['known']:+.2f}",
            f"{found['p']:.2g}",
            f"{found['smallest_corrected']:.2g}",
        ]
        + [f"{100 * found['facts'][level]:.0f} %" for level in ("0.05", "0.25", "0.5", "0.75")]
        for name, found in document["untaught"].items()
    ]
    return "\n".join(
        [
            _table(["light", "persons", *2 * ["wrongly green", "rightly green", "wrongly red"]], errors),
            "",
            "The first three columns are by the figures alone, the last three as if the model was said to be retrained without",
            "the rows. Green / amber / red of each model by the figures alone, over all cases:",
            "",
            _table(["model", *(light.capitalize() for light in LIGHTS)], models),
            "",
            "Facts that were never taught: exposure, its p-value, the smallest p-value of a person after correction, and the",
            "share of facts whose p-value is at most .05, .25, .5 and .75 (the same by chance):",
            "",
            _table(["model", "facts", "exposure", "p", "smallest", ".05", ".25", ".5", ".75"], untaught),
            "",
            f"`python benchmarks/calibration.py{_words(document['arguments'])}`: commit "
            f"{(origin['commit'] or 'unknown')[:12]}, {origin['processor']}, {document['seconds']:.0f} s, "
            f"{origin['date'][:10]}.",
        ]
    )


def _words(arguments: Mapping[str, Any]) -> str:
    attacks = arguments["attacks"]
    return f" --seed {arguments['seed']}" + (f" --attacks {' '.join(attacks)}" if attacks else "")


def _share(color: str, lights: Sequence[str]) -> str:
    return f"{lights.count(color)} of {len(lights)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def main() -> None:
    """Write the tables, or compare them."""
    old = PAGE.read_text(encoding="utf-8")
    found = tables(json.loads(RESULTS.read_text(encoding="utf-8")))
    text = SECTION.sub(lambda m: f"{m[1]}\n{found}\n\n{m[2]}", old)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif text != old:
        sys.exit("docs/verdict.md is out of date; run `make docs`")


if __name__ == "__main__":
    main()
