"""Membership inference, and a classifier: tell trained rows, and unlearned ones, from rows that no model saw."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from scopewise import registry
from scopewise.attacks.base import Attack, Facts, InapplicableError, Outcome, Work, cluster
from scopewise.data.rows import Row
from scopewise.metrics.base import Answered
from scopewise.models.engine import Engine
from scopewise.models.score import Scored

_METRICS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
_FOLDS, _OTHERS = 5, 8
_PENALTY = 1.0
_STEPS = 25


@dataclass(frozen=True, kw_only=True)
class Membership(Attack):
    """Membership inference: separate forgotten rows from rows that no model has seen.

    Signal: share of the unseen rows that look less like training data than the row. The scores are the loss, the loss
    over the zlib-compressed length, the 40 % least likely tokens, and the same standardised. The mean of the signal
    over rows is the area under the ROC curve. The unseen rows are the benchmark's holdout rows, or, if there are none,
    the same question with answers of other instances.

    Source: the scores of `mia_loss`, `mia_zlib`, `mia_min_k`, `mia_min_k_plus_plus` (docs/metrics.md). An
    over-unlearned model falls below the oracle, which reveals membership as well; so a leakage far below 0 is also a
    leak.

    Attributes:
        others: Answers of other instances for each row, where there are no holdout rows. Default: ours.
    """

    others: Annotated[int, Ge(1)] = 8

    name = "membership"
    suite = "quick"
    alone = True
    chance = 0.5

    def work(self, facts: Facts) -> Work:
        """Return about what the attack costs on one model."""
        return Work(passes=self.others + 1)

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return, for each row, the share of unseen rows that look less like training data."""
        others = [facts.holdout or swapped(facts, row, self.others) for row in facts.rows]
        if not any(others):
            raise InapplicableError("there are no unseen rows: no holdout rows, and fewer than two instances")
        unseen = list(dict.fromkeys(row for rows in others for row in rows))
        every = [*facts.rows, *unseen]
        pairs = [item.pair for item in subject.encode(every)]
        scored = dict(zip(every, subject.score(pairs, "membership"), strict=True))
        signals: dict[str, list[float | None]] = {}
        for name in _METRICS:
            metric = registry.lookup("metrics", name)()
            values = {row: metric.score(Answered(row, found)) for row, found in scored.items()}
            signals[name] = [
                placement(values[row], [values[o] for o in rows]) for row, rows in zip(facts.rows, others, strict=True)
            ]
        note = (
            ()
            if facts.holdout
            else ("no holdout rows: the same questions with the answers of other instances instead",)
        )
        return Outcome(facts.rows, signals, {}, note)


@dataclass(frozen=True, kw_only=True)
class Detectability(Attack):
    """Train a classifier on the model's outputs to tell unlearned facts from facts that no model has seen.

    It finds what `membership` finds, and also the opposite: an over-unlearned model gives the unlearned answers a lower
    probability than other wrong answers, so an attacker who tries a list of candidates learns which of them were unlearned.

    Features of an answer: mean, lowest, highest and standard deviation of the tokens' log-probabilities, that of the first
    token, the share of arg-max tokens, mean entropy and variance of the predictions, and length. The unseen rows are the
    benchmark's holdout rows, or, if there are none, the same questions with answers of other instances of the fold. The
    classifier is a logistic regression (L2 penalty 1, both classes weighted alike), cross-validated in up to five folds of
    whole instances.

    Signal: share of the unseen rows of the same fold that the classifier finds less likely to be unlearned; the mean over
    rows is the AUC. A note gives the AUC and the interval of chance: 95 % of the AUCs with permuted labels.

    How to read it: an AUC within the interval of chance means that nothing was detected. The oracle's AUC is the zero of
    the leakage; it is above 0.5 if the two sets of rows differ by themselves.

    Source: the threat of FUMA (forgotten data membership attacks, EMNLP 2025). Ours: features, classifier and negatives.

    Attributes:
        permutations: Number of permutations of the labels, for the interval of chance. Default: ours.
    """

    permutations: Annotated[int, Ge(20)] = 100

    name = "detectability"
    suite = "quick"
    alone = True
    chance = 0.5
    passes = 9

    def run(self, subject: Engine, facts: Facts, target: Engine) -> Outcome:
        """Return, for each row, the share of unseen rows that look less unlearned."""
        fold_of = _folds([cluster(row) for row in (*facts.rows, *facts.holdout)], paired=not facts.holdout)
        others, told = list(facts.holdout), [fold_of[cluster(row)] for row in facts.holdout]
        if not facts.holdout:
            for row in facts.rows:
                for other in swapped(facts, row, _OTHERS, lambda r, o: fold_of[cluster(r)] == fold_of[cluster(o)]):
                    others.append(other)
                    told.append(fold_of[cluster(row)])
        if len(set(fold_of.values())) < 2 or not others:
            raise InapplicableError("too few instances to cross-validate: four are needed, or two and holdout rows")
        every = [*facts.rows, *others]
        folds = np.array([*(fold_of[cluster(row)] for row in facts.rows), *told])
        scored = subject.score([item.pair for item in subject.encode(every)], "detect")
        features = np.array([_features(row, one) for row, one in zip(every, scored, strict=True)])
        labels = np.array([True] * len(facts.rows) + [False] * len(others))
        found = _placements(features, labels, folds)
        rng = np.random.default_rng(facts.seed)
        by_chance = [_auc(_placements(features, rng.permutation(labels), folds)) for _ in range(self.permutations)]
        low, high = np.quantile(by_chance, [0.025, 0.975])
        note = f"AUC {_auc(found):.2f}; by chance {low:.2f} to {high:.2f} ({self.permutations} permutations)"
        return Outcome(facts.rows, {"classifier": found}, {}, (note,))


def swapped(facts: Facts, row: Row, count: int, fits: Callable[[Row, Row], bool] | None = None) -> list[Row]:
    """Return a row's question with up to `count` answers of other instances.

    Args:
        facts: The rows.
        row: Whose question it is.
        count: How many at most.
        fits: Takes the row and another; whether the other's answer may be used. None allows each.
    """
    others = facts.distractors(row, len(facts.rows))
    return [replace(row, answer=other.answer) for other in others if fits is None or fits(row, other)][:count]


def placement(value: float, others: Sequence[float]) -> float | None:
    """Return the share of others that are higher (less like a member); ties count half."""
    if not others:
        return None
    return sum((other > value) + 0.5 * (other == value) for other in others) / len(others)


def _features(row: Row, scored: Scored) -> list[float]:
    """Return what the classifier sees of an answer: nine numbers."""
    log_probs = [max(value, -50.0) for value in scored.log_probs]  # a probability of zero is -inf
    return [
        statistics.fmean(log_probs),
        min(log_probs),
        max(log_probs),
        statistics.pstdev(log_probs),
        log_probs[0],
        statistics.fmean(scored.hits),
        statistics.fmean(scored.means),
        statistics.fmean(scored.variances),
        float(len(log_probs)),
    ]


def _folds(instances: Sequence[str], paired: bool) -> dict[str, int]:
    """Return the fold of each instance, in turn.

    Paired, a fold has at least two instances (four if there are eight), whose answers are swapped: an answer from outside
    would only occur as a wrong one, from which the classifier would learn the answer.
    """
    order = list(dict.fromkeys(instances))
    most = len(order) if not paired else len(order) // 4 if len(order) >= 8 else len(order) // 2
    return {name: i % max(1, min(_FOLDS, most)) for i, name in enumerate(order)}


def _placements(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[float | None]:
    """Return, for each row with a true label, the share of the others of its fold that score lower; ties count half."""
    scores = np.zeros(len(labels))
    for fold in np.unique(folds):
        held = folds == fold
        if labels[~held].any() and not labels[~held].all():
            scores[held] = logistic(features[~held], labels[~held], features[held])
    return [
        placement(-scores[i], [-scores[j] for j in np.flatnonzero((folds == folds[i]) & ~labels)])
        for i in np.flatnonzero(labels)
    ]


def _auc(placements: Sequence[float | None]) -> float:
    known = [value for value in placements if value is not None]
    return statistics.fmean(known) if known else 0.5


def logistic(
    features: Float[np.ndarray, "rows features"], labels: np.ndarray, tested: Float[np.ndarray, "others features"]
) -> Float[np.ndarray, " others"]:
    """Fit a logistic regression, and return the log-odds of other rows.

    Features are standardised; the penalty is on the squared weights without the intercept; both classes have the same total
    weight. Newton's method.

    Args:
        features: Of the rows to fit on.
        labels: Their classes, false and true; both must occur.
        tested: Features of the other rows.
    """
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    share = np.where(labels, labels.mean(), 1 - labels.mean())
    weight = 0.5 / share
    penalty = np.diag([_PENALTY] * features.shape[1] + [1e-6])
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weight * (p - labels)) + penalty @ beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    return np.column_stack([(tested - mean) / scale, np.ones(len(tested))]) @ beta
