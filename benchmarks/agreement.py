"""Do built questions and released ones agree? Ten persons of KnowUnDo, given as attributes only, and models of released rows.

    python benchmarks/agreement.py RUN [--data ../shared/data/knowundo_privacy] [--models FOLDER …]

RUN is a bench on the released privacy domain: its `target` was taught the released rows of all persons, and `base` none. The
persons' attributes, read by hand from the released answers, are in `tests/data/knowundo_persons.yaml`; `scopewise build` makes
the questions by templates, which do not know the released ones. Two figures come out: the share of forget facts that the target
knows by exposure on the built questions (goal: 80 %), and whether the released val rows about these persons and the built ones
order models alike: Spearman's rank correlation of the share of answer tokens that are right, with a 95 % interval of a
bootstrap over persons.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from scopewise.building.instances import read_instances
from scopewise.building.known import LEVEL, forget_facts
from scopewise.building.law import read_law
from scopewise.building.make import ROWS, Settings, build
from scopewise.building.templates import wordings
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, RETAIN, SCOPES, VAL, Row
from scopewise.exposure import expose
from scopewise.models.engine import Engine
from scopewise.record import manifest
from scopewise.terminal import echo

HERE = Path(__file__).parent
PERSONS = HERE.parent / "tests" / "data" / "knowundo_persons.yaml"
RESULT = HERE / "results" / "agreement.json"
DRAWS = 2000


def built(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Return the built rows about the ten persons, and the datasheet."""
    laws = (read_law("privacy-gdpr"),)
    given = read_instances(PERSONS, laws, {kind: wordings(kind) for kind in ("person", "work")})
    sheet = build(given, PERSONS.name, Settings(laws), folder)
    return list(load_benchmark("jsonl", str(folder / ROWS)).rows), sheet


def rates(engine: Engine, rows: list[Row], persons: list[str]) -> list[float]:
    """Return for each person the mean share (0-1) of right answer tokens of the rows that name it."""
    found = []
    for person in persons:
        items = engine.encode([row for row in rows if person in row.question + row.answer], over_length="drop")
        found.append(engine.hit_rate(items) if items else float("nan"))
    return found


def correlation(released: np.ndarray, own: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return Spearman's correlation of the models' means, and a 95 % interval over draws of persons.

    Args:
        released: Shares by model and person; NaN where a person has no row.
        own: The same for the built rows.
        seed: Of the draws.
    """
    rng, draws = np.random.default_rng(seed), list[float]()
    for _ in range(DRAWS):
        chosen = rng.integers(0, released.shape[1], released.shape[1])
        value = spearmanr(np.nanmean(released[:, chosen], 1), np.nanmean(own[:, chosen], 1)).statistic
        draws += [float(value)] if np.isfinite(value) else []
    low, high = np.quantile(draws, [0.025, 0.975])
    value = spearmanr(np.nanmean(released, 1), np.nanmean(own, 1)).statistic
    return {"value": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def main() -> None:
    """Measure, print the result, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="../shared/data/knowundo_privacy")
    parser.add_argument(
        "--models", type=Path, nargs="*", default=[], help="folders whose subfolders are unlearned models"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, sheet = built(Path(folder) / "persons")
        facts = forget_facts(iter(rows))
    persons = sorted({row.instance for row in rows if row.scope in SCOPES})
    released = [
        row for row in load_benchmark("knowundo", given.data, "privacy").rows if any(p in row.question for p in persons)
    ]
    models = {"target": given.run / "target", "base": given.run / "base", "oracle": given.run / "oracle"}
    for folder in [given.run / "models", *given.models]:
        models |= {path.relative_to(folder).parts[0]: path for path in unlearned(folder)}
    exposed, shares = dict[str, Any](), dict[str, Any]()
    for name, path in models.items():
        engine = Engine.load(path, name=name)
        if name in ("target", "base", "oracle"):
            ranks = expose(engine, facts).facts
            by_attribute = {
                attribute: [sum(r.p <= LEVEL for r in ranks if r.fact.row.attribute == attribute), count]
                for attribute in ("parents", "email", "address")
                if (count := sum(r.fact.row.attribute == attribute for r in ranks))
            }
            exposed[name] = {
                "known": sum(r.p <= LEVEL for r in ranks),
                "facts": len(ranks),
                "by_attribute": by_attribute,
            }
            exposed[name]["ranks"] = sorted(r.rank for r in ranks)
            echo(f"{name}: knows {exposed[name]['known']} of {len(ranks)} forget facts")
        shares[name] = {
            f"{scope}, {what}": rates(engine, [r for r in which if (r.scope, r.split) == (scope, VAL)], persons)
            for scope in SCOPES
            for what, which in (("released", released), ("built", [r for r in rows if r.kind == "paraphrase"]))
        }
        echo(f"{name}: " + ", ".join(f"{key} {np.nanmean(values):.3f}" for key, values in shares[name].items()))
    compared = [name for name in shares if name != "base"]
    table = {key: np.array([shares[name][key] for name in compared]) for key in shares["target"]}
    orders = {s: correlation(table[f"{s}, released"], table[f"{s}, built"]) for s in (FORGET, RETAIN)}
    for scope, order in orders.items():
        echo(
            f"{scope}: rank correlation of {len(compared)} models {order['value']} ({order['low']} to {order['high']})"
        )
    means = {
        name: {key: round(float(np.nanmean(values)), 4) for key, values in one.items()} for name, one in shares.items()
    }
    result = {
        "manifest": manifest(None, None),
        "persons": len(persons),
        "built_rows": sheet["counts"]["places"],
        "released_rows": len(released),
        "level": LEVEL,
        "exposure": exposed,
        "right_tokens": means,
        "models_compared": compared,
        "rank_correlation": orders,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")


def unlearned(folder: Path) -> list[Path]:
    """Return the folders of complete models below a folder, one or more levels deep."""
    files = [*folder.rglob("model.safetensors"), *folder.rglob("adapter_model.safetensors")]
    return sorted({path.parent for path in files})


if __name__ == "__main__":
    main()
