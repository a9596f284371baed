"""How much work is left of a request, in rows that are scored or as much, for the time that it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scopewise.attacks.prompts import Prompts
from scopewise.data.facts import Fact
from scopewise.erasure.plan import undoing_more
from scopewise.erasure.resist import FACTS, ResistSettings, lighter
from scopewise.erasure.setup import Setup
from scopewise.errors import ConfigError
from scopewise.eta import Part, Whole, training_cost

ATTEMPTS = {"exact": 1, "approximate": 3}
"""Attempts that are expected. Ours."""
_ATTACKED = 2
"""How many of them are attacked, if the method undoes a share of the fine-tuning. Ours."""
_HOW = ResistSettings()
"""The attacks of a verdict."""
_GENERATED = 16.0
"""Cost of an answer that is generated, over that of one that is scored. Measured on the demo."""


def parts(
    setup: Setup, there: Callable[[str], bool], kind: str, settings: Mapping[str, Any], attempt: int
) -> list[Part]:
    """Return the parts of a request that are to come.

    Args:
        setup: Of the request.
        there: Whether a step was finished before.
        kind: Of the plan; before there is one, what is likely.
        settings: Of the training.
        attempt: Number of attempts that were made.
    """
    found = []
    if not there("known"):
        if setup.options.model is None:
            found.append(Part("teach", ("train",), _trained(setup.request.rows, setup.finetuning)))
        models = 1 if setup.options.model is None or setup.base is None else 2
        found.append(Part("known", ("score",), models * scored(setup.facts), models))
    if kind == "nothing":
        return found
    if not there("unlearn"):
        rows = setup.retain if kind == "exact" else 2 * list(setup.plain.forget)
        kept = 2 * len(setup.retain or setup.general)
        attempts = max(1, ATTEMPTS[kind] - attempt)
        attacked = undoing_more(settings) is not None and "relearning" in setup.options.attacks
        for _ in range(attempts):
            found.append(Part("train", (kind, "train"), _trained(rows, settings)))
            exposed = 0.0 if kind == "exact" else scored(setup.facts_to_choose)
            found.append(Part("measure", ("score",), exposed + kept))
        for _ in range(min(attempts, _ATTACKED) if attacked else 0):
            found.append(Part("attack", ("score",), _relearned(setup, scored(_tested(setup.facts_to_choose, kind)))))
    if not there("verify"):
        found.append(Part("verify", ("score",), _verified(setup, kind)))
    return found


def check_budget(whole: Whole, kind: str, settings: Mapping[str, Any], minutes: float) -> None:
    """Raise ConfigError if a budget is shorter than one step of the training, judged by the speed so far.

    Args:
        whole: The request, some parts of which are done.
        kind: Of the plan.
        settings: Of the training.
        minutes: The budget.
    """
    batch = settings["batch_size"]
    step = whole.seconds([Part("train", (kind, "train"), training_cost(batch, 1.0, batch))])
    if step is not None and 60 * minutes < step:
        raise ConfigError(
            f"--budget: {60 * minutes:.2g} seconds; one step of the training takes about {step:.2g}; add --resume and give "
            "some minutes, or no budget"
        )


def scored(facts: Sequence[Fact]) -> float:
    """Return how many rows are scored to measure the exposure of facts: questions x names x answers."""
    return float(sum(len(f.questions) * (1 + len(f.names)) * (1 + len(f.wrong)) for f in facts))


def _trained(rows: Sequence[Any], settings: Mapping[str, Any]) -> float:
    return training_cost(len(rows), settings["num_train_epochs"], settings["batch_size"])


def _tested(facts: Sequence[Fact], kind: str) -> list[Fact]:
    """Return the facts that are attacked under a plan."""
    return lighter(facts, replace(_HOW, facts=FACTS[kind]))


def _verified(setup: Setup, kind: str) -> float:
    """Return the cost of exposure, retention and attacks."""
    return scored(setup.facts) + 2 * (len(setup.retain) + len(setup.general)) + sum(_attacks(setup, kind))


def _attacks(setup: Setup, kind: str) -> Iterator[float]:
    """Yield the cost of each kind of attack, and of the target without one."""
    tested = _tested(setup.facts, kind)
    once = scored(tested)
    yield 2 * once  # the target, and as asked
    yield 3 * once  # quantized
    yield len(Prompts().templates()) * once
    yield _GENERATED * _HOW.samples * len(tested)
    yield _relearned(setup, once)


def _relearned(setup: Setup, once: float) -> float:
    """Return the cost of relearning, and of `once` scoring the tested facts after each."""
    sources = 1 + bool(setup.retain) + bool(setup.general)
    steps = (1 + sources) * training_cost(
        _HOW.batch_size, float(_HOW.steps), _HOW.batch_size
    )  # forget rows in two halves
    return len(_HOW.learning_rates) * (sources * once + steps)
