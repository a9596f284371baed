"""Choose the settings of the recipes on train rows: at rest on held-out forget rows, and after relearning.

    python benchmarks/choose.py runs/robust/seed1 runs/choose [--candidates CANDIDATE ...] [--set KEY=VALUE] [--out FILE]

The first folder is a finished run of `benchmarks/robust.py`, whose base, target and oracle are used. The last fifth of each
person's forget train rows are held out; forget rows of val are not read at all. A candidate is
[METHOD:]ALPHA:FORGET_WEIGHT:EPOCHS: settings of `METHOD+reset`, with WGA if none is named, and epochs as a share of the
fine-tuning's. Each is a run of its own in the second folder, and is attacked; what is complete is kept. Markdown on stdout,
JSON in `--out`.

Gap: mean of the absolute distances of Unlearn (held-out forget rows) and Retention Success (retain rows of val, which a recipe
trains on) to the oracle. Leakage: the relearning sweep over the forget train rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scopewise.cli import quiet_libraries
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FIELDS, FORGET, RETAIN, TRAIN, VAL, Row
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json, write_text
from scopewise.recipes import Recipe
from scopewise.run_file import load_config
from scopewise.runs.tune import last_of_each

CANDIDATES = ("ihl:0.7:0.05:0.62", "ihl:0.7:0.065:0.62", "ihl:0.7:0.1:0.62", "ihl:0.35:0.2:0.33")
HELD_OUT = 1 / 5
"""Share of each person's forget train rows."""
KEYS = ("unlearn_success/val", "retention_success/val")


def rows_to_choose_on(rows: Sequence[Row]) -> list[Row]:
    """Return the retain rows as they are, and the forget train rows, the last fifth of each person's as val.

    KnowUnDo's val rows are the last ones of each person, and say less of what train says than a row drawn at random does
    (`nearness.py`).
    """
    forget = [row for row in rows if row.scope == FORGET and row.split == TRAIN]
    held = last_of_each(forget, HELD_OUT)
    retain = [row for row in rows if row.scope == RETAIN]
    return [*(replace(row, split=VAL if i in held else TRAIN) for i, row in enumerate(forget)), *retain]


def parts(candidate: str) -> tuple[str, float, float, float]:
    """Return a candidate's method, alpha, forget weight and epochs. ValueError if it is something else."""
    *method, alpha, weight, epochs = candidate.split(":")
    (name,) = method or ("wga",)
    return f"{name}+reset", float(alpha), float(weight), float(epochs)


def settings_of(candidate: str, source: Mapping[str, Any]) -> list[str]:
    """Return the settings of a candidate's run."""
    method, alpha, weight, epochs = parts(candidate)
    recipe = Recipe(
        method=method,
        epochs=epochs,
        price=0.0,
        about="",
        method_args={"forget_weight": weight},
        wrapper_args={"reset": {"alpha": alpha}},
    )
    taught = [f"finetune.{key}={json.dumps(one)}" for key, one in source["finetune"].items()]
    made = recipe.settings(load_config(None, taught).finetune)
    return [
        *taught,
        f"bench.methods=[{recipe.method}]",
        *(f"unlearn.{key}={json.dumps(one)}" for key, one in made.items()),
    ]


def run(source: Path, folder: Path, candidate: str, changes: Sequence[str]) -> dict[str, Any]:
    """Run and attack one candidate; return its figures and the oracle's."""
    from scopewise.runs.attack import attack_run
    from scopewise.runs.bench import Bench
    from scopewise.runs.pipeline import Pipeline

    method = parts(candidate)[0]
    known = read_json(source / "results.json", ResultError)["config"]
    data = known["data"]
    benchmark = load_benchmark(data["benchmark"], data["path"], data["domain"], data["general"], data.get("instances"))
    path = folder / "rows.jsonl"
    if not path.exists():
        rows = rows_to_choose_on(benchmark.rows)
        documents = ({key: value for key, value in asdict(row).items() if key in FIELDS and value} for row in rows)
        write_text(path, "".join(json.dumps(document) + "\n" for document in documents))
    own = [
        f"run.dir={folder / candidate.replace(':', '_')}", "data.benchmark=jsonl", f"data.path={path}", "data.domain=null",
        f"model.path={source / 'base'}", f"model.target={source / 'target'}", f"model.oracle={source / 'oracle'}",
    ]  # fmt: skip
    config = load_config("knowundo_privacy_tiny_robust", [*settings_of(candidate, known), *own, *changes])
    pipeline = Pipeline(config, resume=True)
    with pipeline.folder:
        rows_found = {row["method"]: row for row in Bench(pipeline).run()["rows"]}
    leaks = {row["method"]: row["leakage"] for row in attack_run(pipeline.config, redact=True)["results"]}
    oracle, found = ([rows_found[name]["metrics"][key] for key in KEYS] for name in ("oracle", method))
    gap = sum(abs(a - b) for a, b in zip(found, oracle, strict=True)) / 2
    return {
        "unlearn": found[0],
        "retention": found[1],
        "gap": gap,
        "leakage": leaks[method],
        "oracle": oracle,
        "steps": rows_found[method]["cost"]["steps"],
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table."""
    lines = [
        "| method | alpha | forget_weight | epochs | steps | Unlearn | Retention | gap | leakage |",
        "|" + "---:|" * 9,
    ]
    for candidate, one in found.items():
        leakage = "" if one["leakage"] is None else f"{one['leakage']:.2f}"
        cells = f"{one['steps']} | {one['unlearn']:.1f} | {one['retention']:.1f} | {one['gap']:.1f} | {leakage}"
        lines.append(f"| {' | '.join(map(str, parts(candidate)))} | {cells} |")
    oracle = next(iter(found.values()))["oracle"]
    return "\n".join([*lines, "", f"Oracle: {oracle[0]:.1f} / {oracle[1]:.1f}."])


def main(words: Sequence[str] | None = None) -> None:
    """Run the candidates, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES))
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(words)
    quiet_libraries()
    from scopewise.record import manifest

    given.folder.mkdir(parents=True, exist_ok=True)
    found = {one: run(given.source, given.folder, one, given.changes) for one in given.candidates}
    if given.out is not None:
        write_json(given.out, {"manifest": manifest(None, None), "set": given.changes, "candidates": found})
    print(table(found))


if __name__ == "__main__":
    main()
