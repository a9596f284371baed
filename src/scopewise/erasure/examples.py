"""Answers of the models before and after to the questions of the worst facts, for the controller."""

from __future__ import annotations

from scopewise.erasure.page import Answers
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure

_MORE = 8
"""Tokens that are generated beyond the length of the longest true answer."""


def examples(exposure: Exposure, engine: Engine, target: Engine, count: int = 3) -> list[Answers]:
    """Return what both models say, by greedy decoding, to the request's own questions about the worst facts.

    Args:
        exposure: Of the model; the facts whose true answers rank highest are the worst.
        engine: Of the model.
        target: Of the model before.
        count: Number of facts.
    """
    worst = [one.fact for one in sorted(exposure.facts, key=lambda fact: (fact.p, -fact.known))[:count]]
    items = [engine.encode([fact.row], over_length="drop") for fact in worst]
    fitting = [(fact, item[0]) for fact, item in zip(worst, items, strict=True) if item]
    if not fitting:
        return []
    prompts = [item.prompt_ids for _, item in fitting]
    tokens = max(len(item.answer_ids) for _, item in fitting) + _MORE
    said = [model.generate(prompts, tokens, "examples") for model in (target, engine)]
    return [
        Answers(fact.instance, fact.row.question, fact.row.answer, before[0].strip(), after[0].strip())
        for (fact, _), before, after in zip(fitting, *said, strict=True)
    ]
