"""What unlearning costs in general ability: models of a run, each compared with the target question by question.

    python benchmarks/ability_cost.py RUN --path TASKS [--base MODEL] [--models models/wga/tuned/seed0 ...] [--out FILE]

RUN is a run folder; without `--models` all its unlearned models are measured, besides target and oracle, which may be
elsewhere (`model.target`). `--base` is the model before fine-tuning, so that what fine-tuning costs is seen, too. TASKS holds
the tasks' files (docs/ability.md), which are asked without examples. What is measured is kept in `--out` (by default in the
run), with the score of each question: run it again to go on. A model that has changed since is refused. Markdown on stdout.

A difference is that of the mean over the questions of all tasks with an accuracy, with a 95 % interval (1.96 standard errors of
the paired differences): questions are a sample, the model is the one that stands there. Perplexity is per word of the texts.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scopewise.ability.measure import measure_ability
from scopewise.cli import quiet_libraries
from scopewise.config import AbilitySection
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.run_file import load_config
from scopewise.runs.stages import digest, model_identity

LIMITS = {"arc_challenge": 100, "truthfulqa_mc2": 100, "social_iqa": 100, "mmlu": 2, "wikitext": 2}
"""Questions of each task (of each of MMLU's subjects), and texts."""
PERPLEXITY = "word_perplexity/wikitext"
NORMAL_95 = statistics.NormalDist().inv_cdf(0.975)

Scores = Mapping[str, list[float | None]]
"""Task → score of each question, in percent; `PERPLEXITY` → its one value. None where the model's score is not finite."""


def scores(model: str | Path, settings: AbilitySection) -> dict[str, list[float | None]]:
    """Return the scores of a model on each task's questions."""
    found = measure_ability(Engine.load(model), settings)
    kept: dict[str, list[float | None]] = {}
    for key, value in found.items():
        if key == PERPLEXITY:
            kept[key] = [value.value]
        elif key.startswith("ability/") and key != "ability/mean" and not key.endswith("_norm"):
            kept[key.removeprefix("ability/")] = list(value.per_row)
    return kept


def difference(one: Scores, other: Scores) -> tuple[float, float, float]:
    """Return the mean difference of two models over all questions that both have a score of, and its 95 % interval."""
    pairs = [(a, b) for key in one if key != PERPLEXITY for a, b in zip(one[key], other[key], strict=True)]
    values = [a - b for a, b in pairs if a is not None and b is not None]
    mean = statistics.fmean(values)
    half = NORMAL_95 * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def table(found: Mapping[str, Scores]) -> str:
    """Return the Markdown table."""
    tasks = [key for key in found["target"] if key != PERPLEXITY]
    heads = [f"{task} ({len(found['target'][task])})" for task in tasks]
    lines = [
        f"| | {' | '.join(heads)} | all, to the target | perplexity |",
        "|---|" + "---:|" * (len(tasks) + 2),
    ]
    for path, one in found.items():
        name = path.removeprefix("models/")
        cells = [f"{statistics.fmean(score for score in one[task] if score is not None):.1f}" for task in tasks]
        if name == "target":
            cells.append("")
        else:
            mean, low, high = difference(one, found["target"])
            cells.append(f"{mean:+.1f} [{low:.1f}, {high:.1f}]")
        perplexity = one.get(PERPLEXITY, [None])[0]
        cells.append("" if perplexity is None else f"{perplexity:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--path", required=True, help="folder of the tasks' files")
    parser.add_argument("--base", help="the model before fine-tuning")
    parser.add_argument("--models", nargs="+", help="folders in the run; none: all")
    parser.add_argument("--out", type=Path, help="none: RUN/ability_cost.json")
    arguments = parser.parse_args()
    quiet_libraries()
    settings = AbilitySection(tasks=tuple(LIMITS), path=arguments.path, limit=LIMITS)
    run: Path = arguments.run
    own = arguments.models or sorted(str(file.parent.relative_to(run)) for file in run.glob("models/*/*/*/stage.json"))
    given = load_config(run / "config.yaml").model
    models: dict[str, str | Path] = {"base": arguments.base} if arguments.base else {}
    models["target"] = given.target or run / "target"
    if (oracle := Path(given.oracle or run / "oracle")).exists():
        models["oracle"] = oracle
    models |= {name: run / name for name in own}
    out: Path = arguments.out or run / "ability_cost.json"
    kept: dict[str, Any] = read_json(out, ResultError)["models"] if out.exists() else {}
    for name, path in models.items():
        measured = digest(model_identity(path))
        if name not in kept:
            kept[name] = {"digest": measured, "scores": scores(path, settings)}
            write_json(out, {"manifest": manifest(None, None), "limits": LIMITS, "models": kept})
        elif kept[name]["digest"] != measured:
            raise SystemExit(f"{out}: {name} is another model now; name another file with --out, or remove this one")
    print(table({name: kept[name]["scores"] for name in models}))


if __name__ == "__main__":
    main()
