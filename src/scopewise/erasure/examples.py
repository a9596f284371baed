"""Answers of the models before and after to the questions of the worst facts, for the controller."""

from __future__ import annotations

from dataclasses import replace

from scopewise.erasure.page import Answers
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure

_MORE = 8
"""Tokens that are generated beyond the length of the longest true answer."""


def examples(exposure: Exposure, engine: Engine, target: Engine, count: int = 3) -> list[Answers]:
    """Return what both models say, by greedy decoding, to the last wording of the questions of the worst facts.

    Args:
        exposure: Of the model; the facts whose true answers rank highest are the worst.
        engine: Of the model.
        target: Of the model before.
        count: Number of facts.
    """
    worst = [one.fact for one in sorted(exposure.facts, key=lambda fact: (fact.p, -fact.known))[:count]]
    rows = [replace(fact.row, question=fact.questions[-1]) for fact in worst]
    items = [engine.encode([row], over_length="drop") for row in rows]
    fitting = [(fact, row, item[0]) for fact, row, item in zip(worst, rows, items, strict=True) if item]
    if not fitting:
        return []
    prompts = [item.prompt_ids for _, _, item in fitting]
    tokens = max(len(item.answer_ids) for _, _, item in fitting) + _MORE
    said = [model.generate(prompts, tokens, "examples") for model in (target, engine)]
    return [
        Answers(fact.instance, row.question, row.answer, before[0].strip(), after[0].strip())
        for (fact, row, _), before, after in zip(fitting, *said, strict=True)
    ]
