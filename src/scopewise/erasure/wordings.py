"""Other wordings of a question, by templates: one set to train on and another, disjoint one to verify with.

No template depends on the number or gender of what is asked for, so that it is English for any attribute.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import chain, zip_longest

from scopewise.data.instances import instance_of
from scopewise.data.rows import Row

TRAIN_FACT = ("Tell me the {attribute} of {instance}.", "I am looking for {instance}'s {attribute}.")
TRAIN_QUESTION = ("Please answer this question. {question}", "Here is what I would like to know. {question}")
VERIFY_CLAUSE = ("Could you tell me {clause}?", "I wonder {clause}.")
VERIFY_FACT = ("What do you know about the {attribute} of {instance}?", "Give me {instance}'s {attribute}, please.")
VERIFY_QUESTION = ("Somebody asked me this: {question}", "{question} What would you say?")

_SPOKEN = {"born": "date and place of birth", "email": "e-mail address", "phone": "phone number", "job": "occupation"}
"""Attributes that data name by another word than one says."""
Facts = Collection[tuple[str, str]]
"""Pairs of instance and attribute that one row alone asks for, so that naming the two asks the same."""


def to_train(row: Row, facts: Facts) -> list[str]:
    """Return wordings to train on: of the fact, if `facts` has it, and of the question, in turns."""
    return _in_turns(_of_fact(TRAIN_FACT, row, facts), [text.format(question=row.question) for text in TRAIN_QUESTION])


def to_verify(row: Row, facts: Facts) -> list[str]:
    """Return wordings to verify with: an indirect question, if one can be made, of the fact, and of the question."""
    clause = indirect_clause(row)
    return _in_turns(
        [text.format(clause=clause) for text in VERIFY_CLAUSE if clause],
        _of_fact(VERIFY_FACT, row, facts),
        [text.format(question=row.question) for text in VERIFY_QUESTION],
    )


def indirect_clause(row: Row) -> str | None:
    """Return "where Ada lives" of "Where does Ada live?"; None for a question of another form."""
    name = re.escape(instance_of(row.instance, row.question))
    asks, be = r"(?P<asks>(?:where|when|why|how|what|which|who)\b[^?]*?)", r"(?P<be>is|was|are|were)"
    forms = {
        rf"{asks} does (?P<who>{name}) (?P<verb>\w+)(?P<rest>[^?]*)\?": "{asks} {who} {verb}{rest}",
        rf"{asks} {be} (?P<who>{name}['’]s [\w -]+|the [\w -]+ of {name})\?": "{asks} {who} {be}",
        rf"{asks} {be} (?P<who>{name})(?P<rest>(?: [\w-]+)*)\?": "{asks} {who} {be}{rest}",
    }
    for form, clause in forms.items():
        if found := re.fullmatch(form, row.question.strip(), re.IGNORECASE):
            parts = found.groupdict()
            parts["asks"] = parts["asks"][0].lower() + parts["asks"][1:]
            if "verb" in parts:
                parts["verb"] = _third_person(parts["verb"])
            return clause.format(**parts)
    return None


def value_of(answer: str) -> str | None:
    """Return "3 Mill Lane" of "She lives at 3 Mill Lane."; None where no short name or number can be found."""
    text = answer.strip().removesuffix(".")
    found = re.fullmatch(r"(?:.*?\b(?:is|are|was|were|at|on|in|to|from|by)\s+)?(.+)", text, re.DOTALL | re.IGNORECASE)
    value = found[1] if found else ""
    whole_sentence = value == text and answer.strip() != text
    two_sentences = re.search(r"[.!?]\s", text) or re.search(r"\b(is|are|was|were)\b", value)
    if whole_sentence or two_sentences or len(value.split()) > 8:
        return None
    return value if re.search(r"[A-Z\d@]", value) else None


def inverse_of(row: Row) -> str | None:
    """Return the question that gives the value and asks for the instance; None where it cannot be made."""
    value = value_of(row.answer)
    if not (row.instance and row.attribute and value) or row.domain != "privacy" or row.instance in value:
        return None
    return f"To whom does this {_spoken(row.attribute)} belong: {value}?"


def _of_fact(templates: tuple[str, ...], row: Row, facts: Facts) -> list[str]:
    if (row.instance, row.attribute) not in facts or row.domain != "privacy" or row.attribute == "name":
        return []
    return [text.format(attribute=_spoken(row.attribute), instance=row.instance) for text in templates]


def _spoken(attribute: str) -> str:
    return _SPOKEN.get(attribute.lower(), attribute.replace("_", " "))


def _in_turns(*kinds: list[str]) -> list[str]:
    return [text for text in chain.from_iterable(zip_longest(*kinds)) if text]


def _third_person(verb: str) -> str:
    if verb == "have":
        return "has"
    if re.search(r"([sxzo]|[cs]h)$", verb):
        return f"{verb}es"
    return re.sub(r"([^aeiou])y$", r"\1ie", verb) + "s"
