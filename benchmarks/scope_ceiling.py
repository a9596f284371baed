"""How well can the scope of a held-out question be told from the train rows? It bounds what unlearning can reach on val.

    python benchmarks/scope_ceiling.py [--run-file FILE] [--set KEY=VALUE] [--results RESULTS.json] [--out FILE]

KnowUnDo's val rows are other facts, not other wordings: target and oracle were taught them, the unlearning was not. The target
knows the val facts of both scopes equally well, so whether one has to go can only be learned from the train rows. A classifier
(logistic regression on words and word pairs, each instance's name replaced by one word) that sees the same rows shows how far
they lead. With `--results`, a bench's results: what a model would reach that behaves as the oracle where the classifier says
forget, and as the target where it says retain. The threshold with the smallest gap is chosen on val itself, so this is an
optimistic bound for that classifier. Not a proof: a reader of English may tell scopes better than words and their pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from scopewise.data.instances import instance_of
from scopewise.data.load import load_benchmark
from scopewise.data.rows import FORGET, SCOPES, TRAIN, VAL, Row
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.record import manifest
from scopewise.run_file import load_config

STRENGTHS = [0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


def text_of(row: Row, answer: bool) -> str:
    """Return the question, and the answer if asked for, without the name of the instance."""
    text = f"{row.question} {row.answer}" if answer else row.question
    return text.replace(instance_of(row.instance, row.question), "NAME")


def classified(train: Sequence[Row], val: Sequence[Row], answer: bool) -> tuple[dict[str, Any], list[float]]:
    """Return accuracy, recalls and AUC on val, and P(forget) of each val row. The strength is chosen on train (5 folds)."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=5000))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=5)
    search.fit([text_of(row, answer) for row in train], [row.scope == FORGET for row in train])
    forget = np.array([row.scope == FORGET for row in val])
    chance = search.predict_proba([text_of(row, answer) for row in val])[:, 1]
    said = chance >= 0.5
    return {
        "strength": search.best_params_["logisticregression__C"],
        "accuracy_train_folds": float(search.best_score_),
        "accuracy": float((said == forget).mean()),
        "forget_recall": float(said[forget].mean()),
        "retain_recall": float((~said[~forget]).mean()),
        "auc": float(roc_auc_score(forget, chance)),
    }, chance.tolist()


def best_reached(
    chance: Sequence[float], forget: Sequence[bool], target: tuple[float, float], oracle: tuple[float, float]
) -> dict[str, float]:
    """Return the point nearest to the oracle over all thresholds, in percent.

    A row that is taken for forget behaves as under the oracle: as its own scope there if it is a forget row, and as a
    forgotten fact if it is a retain row. The others behave as under the target.

    Args:
        chance: P(forget) of each row.
        forget: Whether each row is of the forget scope.
        target: Unlearn and Retention Success of the target.
        oracle: Those of the oracle.
    """
    scores, truth = np.array(chance), np.array(forget)
    found = []
    for threshold in [0.0, *sorted(scores), 1.1]:
        gone = scores >= threshold
        right, wrong = gone[truth].mean(), gone[~truth].mean()
        unlearn = right * oracle[0] + (1 - right) * target[0]
        retention = (1 - wrong) * target[1] + wrong * (100 - oracle[0])
        gap = (abs(unlearn - oracle[0]) + abs(retention - oracle[1])) / 2
        found.append({"unlearn": unlearn, "retention": retention, "gap": gap, "threshold": float(threshold)})
    return {key: float(value) for key, value in min(found, key=lambda one: one["gap"]).items()}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table."""
    lines = ["| classifier sees | accuracy | forget recall | retain recall | AUC | best Unlearn | Retention | gap |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, one in found.items():
        shares = " | ".join(f"{100 * one[key]:.1f}" for key in ("accuracy", "forget_recall", "retain_recall"))
        best = one.get("best")
        reached = " |  |  |" if best is None else " | ".join(f"{best[k]:.1f}" for k in ("unlearn", "retention", "gap"))
        lines.append(f"| {name} | {shares} | {one['auc']:.3f} | {reached} |")
    return "\n".join(lines)


def main() -> None:
    """Fit both classifiers, and print and write what they reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-file", default="knowundo_privacy_tiny")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scope_ceiling.json"))
    given = parser.parse_args()
    data = load_config(given.run_file, given.set).data
    benchmark = load_benchmark(data.benchmark, data.path, data.domain, data.general, data.instances)
    train, val = (
        [row for row in benchmark.rows if row.split == split and row.scope in SCOPES] for split in (TRAIN, VAL)
    )
    anchors = None
    if given.results is not None:
        rows = {row["method"]: row["metrics"] for row in read_json(given.results, ResultError)["rows"]}
        anchors = [
            (rows[name]["unlearn_success/val"], rows[name]["retention_success/val"]) for name in ("target", "oracle")
        ]
    found: dict[str, dict[str, Any]] = {}
    for name, answer in (("the question", False), ("question and true answer", True)):
        found[name], chance = classified(train, val, answer)
        if anchors is not None:
            found[name]["best"] = best_reached(chance, [row.scope == FORGET for row in val], *anchors)
    document = {
        "manifest": manifest(None, benchmark.content_hash()),
        "rows": {"train": len(train), "val": len(val)},
        "anchors": anchors,
        "classifiers": found,
    }
    write_json(given.out, document)
    print(table(found))


if __name__ == "__main__":
    main()
