"""Rows about well-known instances of the past: the questions of the benchmark with another subject, only measured."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

from scopewise.building.law import Rule
from scopewise.building.listed import listed_values
from scopewise.building.questions import REPLACED
from scopewise.building.templates import shipped, wordings
from scopewise.building.values import written
from scopewise.building.wrong import wrong_values
from scopewise.data.rows import NEIGHBOR, VAL, Row

_DOMAINS = {"person": "privacy", "work": "copyright"}
PUBLIC = Rule(
    scope="retain", article="public knowledge", sentence="It is public knowledge, and about none of the instances."
)


def neighbours(kind: str, attributes: Collection[str], names: Collection[str], wrong: int, seed: int) -> Iterator[Row]:
    """Yield rows of scope `neighbor` for the attributes that a benchmark asks for.

    Args:
        kind: `person` or `work`.
        attributes: Those of the benchmark's instances of this kind.
        names: Of the benchmark's instances, which are no neighbours.
        wrong: Wrong answers of each row.
        seed: Of the draws.
    """
    how = wordings(kind)
    known = {
        name: {a: written(value, how.of(a).type, f"{name}: {a}") for a, value in facts.items() if a in attributes}
        for name, facts in shipped("neighbours")[kind].items()
        if name not in names
    }
    for name, facts in known.items():
        for attribute, value in facts.items():
            rng = random.Random(f"{seed} {name} {attribute}")
            wording = how.of(attribute).by_split[VAL]
            pool = [other[attribute] for other in known.values() if attribute in other]
            listed = listed_values(value, how.of(attribute).type, (kind, name, attribute), 2 * wrong, rng)
            others = wrong_values(value, how.of(attribute).type, pool, (), wrong, rng, listed)
            said = [text.format(name=name, value=value) for text in wording.answer]
            yield Row(
                rng.choice(wording.ask).format(name=name),
                said[0],
                NEIGHBOR,
                VAL,
                name,
                attribute,
                _DOMAINS[kind],
                PUBLIC.article,
                paraphrase=said[1],
                perturbed=tuple(wording.answer[0].format(name=name, value=other) for other in others),
                kind=REPLACED,
            )
