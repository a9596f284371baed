"""How much work is left of a request, in characters that are scored or as much, for the time that it will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Any

from scopewise.attacks.prompts import Prompts
from scopewise.data.facts import Fact
from scopewise.data.rows import Row
from scopewise.erasure.plan import undoing_more
from scopewise.erasure.resist import DRAWS, FACTS, ResistSettings, lighter
from scopewise.erasure.setup import Setup
from scopewise.errors import ConfigError
from scopewise.eta import Part, Whole

ATTEMPTS = {"exact": 1, "approximate": 3}
"""Attempts that are expected. Ours."""
_ATTACKED = 2
"""How many of them are attacked, if the method undoes a share of the fine-tuning. Ours."""
_HOW = ResistSettings()
"""The attacks of a verdict."""
_GENERATED = 16.0
"""Cost of a character that is generated, over that of one that is scored. Measured on the demo."""
_TRAINED, _STEP = 0.3, 2800.0
"""Cost of a character in an epoch of training, and of each step. Measured on the demo and on thirty rows."""
_LARGE, _MORE = 30_000_000, 3.5
"""With more parameters than this, training costs about this much more: 3.1 and 3.8 in two measurements with 135 million."""


def parts(
    setup: Setup, there: Callable[[str], bool], kind: str, settings: Mapping[str, Any], attempt: int,
    seconds: Callable[[Sequence[Part]], float | None] = lambda parts: None,
) -> list[Part]:  # fmt: skip
    """Return the parts of a request that are to come.

    Args:
        setup: Of the request.
        there: Whether a step was finished before.
        kind: Of the plan; before there is one, what is likely.
        settings: Of the training.
        attempt: Number of attempts that were made.
        seconds: Returns how long parts will take, about; None if that is not known. By it a budget says how many attempts fit.
    """
    found = []
    if not there("known"):
        if setup.options.model is None:
            found.append(Part("teach", ("train",), _trained(setup, setup.request.rows, setup.finetuning)))
        models = 1 if setup.base is None or setup.blank or setup.few else 2
        found.append(Part("known", ("score",), models * scored(setup.facts, few=setup.few), models))
    if kind == "nothing":
        return found
    if not there("unlearn"):
        rows = setup.retain if kind == "exact" else 2 * list(setup.plain.forget)
        exposed = 0.0 if kind == "exact" else scored(setup.facts_to_choose, few=setup.few)
        kept = _kept(setup) + (0.0 if kind == "exact" else _text(setup.general))
        train = Part("train", (kind, "train"), _trained(setup, rows, settings))
        measure = Part("measure", ("score",), exposed + kept)
        attempts = max(1, _attempts(setup, kind, seconds([train, measure])) - attempt)
        found += attempts * [train, measure]
        if attempt == 0:  # what the target knows of them is measured once
            found[-2 * attempts + 1] = replace(measure, cost=exposed + 2 * kept)
        if undoing_more(settings) is not None and "relearning" in setup.options.attacks:
            relearned = _relearned(setup, _tested(setup.facts_to_choose, kind), kind, 0)
            attack = Part("attack", ("score",), relearned, step=_step(setup))
            found += min(attempts, _ATTACKED) * [attack]
    if not there("verify"):
        found.append(Part("verify", ("score",), _verified(setup, kind), step=_step(setup)))
    return found


def _attempts(setup: Setup, kind: str, each: float | None) -> int:
    """Return how many attempts are expected if each takes so many seconds."""
    minutes = setup.options.minutes
    return ATTEMPTS[kind] if not minutes or not each else min(ATTEMPTS[kind], int(60 * minutes / each))


def check_budget(setup: Setup, whole: Whole, kind: str, minutes: float) -> None:
    """Raise ConfigError if a budget is shorter than one step of the training, judged by the speed so far.

    Args:
        setup: Of the request.
        whole: The request, some parts of which are done.
        kind: Of the plan.
        minutes: The budget.
    """
    step = whole.seconds([Part("train", (kind, "train"), _more(setup) * _STEP)])
    if step is not None and 60 * minutes < step:
        raise ConfigError(
            f"--budget: {60 * minutes:.2g} seconds; one step of the training takes about {step:.2g}; add --resume and give "
            "some minutes, or no budget"
        )


def scored(facts: Sequence[Fact], *, few: bool) -> float:
    """Return the characters that are forwarded to measure the exposure of facts.

    The answers to a question under a name are a tree: the text with which several begin counts once.

    Args:
        facts: The facts.
        few: Whether they are compared with the base and not under other names.
    """
    text = 0
    for fact in facts:
        answers = sorted({fact.row.answer, *fact.wrong})
        shared = sum(len(list(takewhile(_equal, zip(*two, strict=False)))) for two in pairwise(answers))
        tree = sum(map(len, answers)) - shared
        names = 1 if few else 1 + len(fact.names)
        text += names * sum(len(question) + tree for question in fact.questions)
    return float(text)


def _equal(two: tuple[str, str]) -> bool:
    return two[0] == two[1]


def _text(rows: Sequence[Row]) -> float:
    """Return the characters of rows."""
    return float(sum(len(row.question) + len(row.answer) for row in rows))


def _kept(setup: Setup) -> float:
    """Return the cost of measuring the retention of a model, in the wordings of the request and in others."""
    return _text([*setup.plain.retain, *setup.plain.held_out] if setup.retain else setup.general)


def _trained(setup: Setup, rows: Sequence[Row], settings: Mapping[str, Any]) -> float:
    steps = math.ceil(len(rows) / settings["batch_size"])
    return _more(setup) * float(settings["num_train_epochs"] * (_TRAINED * _text(rows) + _STEP * steps))


def _more(setup: Setup) -> float:
    """Return the cost of training over that in a small model, where the overhead of scoring counts for more."""
    return _MORE if setup.parameters > _LARGE else 1.0


def _tested(facts: Sequence[Fact], kind: str) -> list[Fact]:
    """Return the facts that are attacked under a plan."""
    return lighter(facts, replace(_HOW, facts=FACTS[kind]))


def _verified(setup: Setup, kind: str) -> float:
    """Return the cost of exposure, retention and attacks."""
    kept = 2 * (_kept(setup) + _text(setup.general))
    return scored(setup.facts, few=setup.few) + kept + sum(_attacks(setup, kind))


def _attacks(setup: Setup, kind: str) -> Iterator[float]:
    """Yield the cost of each kind of attack, and of the target without one."""
    tested = _tested(setup.facts, kind)
    once = scored(tested, few=setup.few)
    yield 2 * once  # the target, and as asked
    yield 3 * once  # quantized
    yield len(Prompts().templates()) * once
    yield _GENERATED * _HOW.samples * _text([fact.row for fact in tested])
    yield _relearned(setup, tested, kind, bool(setup.retain) + bool(setup.general))


def _relearned(setup: Setup, tested: Sequence[Fact], kind: str, other: int) -> float:
    """Return the cost of relearning on forget rows and on some `other` kinds, and of measuring the tested facts after each."""
    draws, measured, trained = DRAWS[kind], scored(tested, few=setup.few), _HOW.steps * _step(setup)
    return len(_HOW.learning_rates) * (draws * (measured + 2 * trained) + other * (measured + trained))


def _step(setup: Setup) -> float:
    """Return the cost of a step of relearning."""
    row = _text(setup.forget) / len(setup.forget)
    return _more(setup) * (_TRAINED * _HOW.batch_size * row + _STEP)
